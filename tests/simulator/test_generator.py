"""Random numbers on the simulated device have a state of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F


def test_same_seed_gives_the_numbers_of_the_cpu() -> None:
    """The kernels are the CPU's, so equal seeds give equal numbers."""
    torch.manual_seed(3)
    on_mps = torch.randn(5, device="mps").cpu()
    torch.manual_seed(3)
    assert torch.equal(on_mps, torch.randn(5))


def test_states_are_independent() -> None:
    """Drawing on one device leaves the other's sequence alone, in both directions."""
    torch.manual_seed(0)
    cpu, mps = torch.get_rng_state(), torch.mps.get_rng_state()
    torch.rand(4, device="mps")
    F.dropout(torch.ones(64, device="mps"), 0.5)
    torch.randperm(6, device="mps")
    torch.multinomial(torch.ones(4, device="mps"), 2)
    assert torch.equal(torch.get_rng_state(), cpu)
    torch.mps.set_rng_state(mps)
    torch.rand(4)
    assert torch.equal(torch.mps.get_rng_state(), mps)


def test_state_can_be_taken_and_put_back() -> None:
    """`set_rng_state` repeats the numbers, dropout masks included."""
    state = torch.mps.get_rng_state()
    first = F.dropout(torch.ones(256, device="mps"), 0.5), torch.rand(3, device="mps")
    torch.mps.set_rng_state(state)
    again = F.dropout(torch.ones(256, device="mps"), 0.5), torch.rand(3, device="mps")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert 0 < int((first[0] == 0).sum()) < 256


def test_manual_seed_of_the_device_leaves_the_cpu_alone() -> None:
    """`torch.mps.manual_seed` seeds mps only; `torch.manual_seed` seeds both."""
    cpu = torch.get_rng_state()
    torch.mps.manual_seed(11)
    assert torch.equal(torch.get_rng_state(), cpu)
    first = torch.rand(3, device="mps")
    torch.manual_seed(11)
    assert torch.equal(torch.rand(3, device="mps"), first)
    torch.mps.seed()
    assert not torch.equal(torch.rand(3, device="mps"), first)


def test_generator_objects_live_on_mps() -> None:
    """`torch.Generator(device="mps")` draws from its own state, and the CPU's is refused."""
    generator = torch.Generator(device="mps").manual_seed(5)
    assert generator.device.type == "mps"
    first = torch.randn(4, device="mps", generator=generator)
    copy = torch.Generator(device="mps")
    copy.set_state(torch.Generator(device="mps").manual_seed(5).get_state())
    assert torch.equal(torch.randn(4, device="mps", generator=copy), first)
    assert generator.initial_seed() == 5
    clone = generator.clone_state()
    assert torch.equal(torch.randn(4, device="mps", generator=generator), torch.randn(4, device="mps", generator=clone))
    with pytest.raises(RuntimeError, match="Expected a 'mps' device type for generator but found 'cpu'"):
        torch.randn(4, device="mps", generator=torch.Generator())


def test_fork_rng_restores_the_device() -> None:
    """`torch.random.fork_rng(device_type="mps")` puts the state back."""
    state = torch.mps.get_rng_state()
    with torch.random.fork_rng(devices=[0], device_type="mps"):
        torch.rand(2, device="mps")
    assert torch.equal(torch.mps.get_rng_state(), state)


DRAWS: dict[str, tuple[int, Callable[[torch.Generator], object]]] = {
    # ten numbers, four of 32 bits in a step
    "normal": (3, lambda g: torch.randn(10, device="mps", generator=g)),
    "uniform into a tensor with gaps": (3, lambda g: torch.empty(20, device="mps")[::2].uniform_(generator=g)),
    "complex": (5, lambda g: torch.randn(10, dtype=torch.complex64, device="mps", generator=g)),
    "int32": (3, lambda g: torch.randint(9, (10,), dtype=torch.int32, device="mps", generator=g)),
    "int64": (5, lambda g: torch.randint(9, (10,), device="mps", generator=g)),
    "a mask": (3, lambda g: torch.empty(10, device="mps").bernoulli_(0.5, generator=g)),
    "masks of their own probability": (10, lambda g: torch.bernoulli(torch.ones(10, device="mps"), generator=g)),
    "multinomial": (3, lambda g: torch.multinomial(torch.ones(10, device="mps"), 1, generator=g)),
    "a small permutation": (25, lambda g: torch.randperm(101, device="mps", generator=g)),
    "a permutation": (250, lambda g: torch.randperm(1000, device="mps", generator=g)),
    "a large permutation": (40960, lambda g: torch.randperm(32768, device="mps", generator=g)),
}


@pytest.mark.parametrize("what", DRAWS)
def test_the_offset_counts_what_is_drawn(what: str) -> None:
    """As the kernels of Distributions.mm advance it."""
    steps, draw = DRAWS[what]
    generator = torch.Generator(device="mps").manual_seed(1)
    assert generator.get_offset() == 0
    for turn in (1, 2):
        draw(generator)
        assert generator.get_offset() == turn * steps
    assert generator.manual_seed(1).get_offset() == 0


def test_an_offset_repeats_what_came_after_it() -> None:
    """One that was asked for exactly; another as after as many uniform numbers. States and clones have it too."""
    generator = torch.Generator(device="mps").manual_seed(5)
    draw = partial(torch.randn, 7, device="mps", generator=generator)
    draw()
    offset, state = generator.get_offset(), generator.get_state()
    clone = generator.clone_state()
    drawn = draw()
    draw()
    generator.set_offset(offset)
    assert torch.equal(draw(), drawn) and generator.get_offset() == offset + 2
    generator.set_state(state)
    assert generator.get_offset() == clone.get_offset() == offset
    assert torch.equal(draw(), drawn)

    generator.manual_seed(3)
    generator.set_offset(2)
    numbers = torch.rand(4, device="mps", generator=generator)
    torch.manual_seed(3)
    assert torch.equal(numbers.cpu(), torch.rand(12)[8:])


def test_states_of_another_device_are_refused() -> None:
    """In torch's words: the sizes differ."""
    with pytest.raises(RuntimeError, match="RNG state is wrong size"):
        torch.mps.set_rng_state(torch.get_rng_state())
    with pytest.raises(RuntimeError, match="Expected a CPUGeneratorImplState of size 5056"):
        torch.set_rng_state(torch.mps.get_rng_state())
