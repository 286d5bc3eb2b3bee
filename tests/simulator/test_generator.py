"""Random numbers on the simulated device have a state of their own."""

from __future__ import annotations

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
