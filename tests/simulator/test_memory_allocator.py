"""The account of heaps and buffers is that of torch's MPS allocator: compared step by step with a plain model of it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patcher.simulator import Device
from tests.process import run_python
from tests.simulator.mps_allocator import MIB, Allocator, OutOfMemory

GIB = 1024 * MIB
EDGES = (1, 8, 256, 257, MIB - 256, MIB, MIB + 1, 10 * MIB - 256, 10 * MIB, 42 * MIB, 512 * MIB - 1, 512 * MIB)

Step = tuple[str, int]


def size(random: random.Random) -> int:
    """A length of each class: within a page, small, large, extra large, in a heap of its own; and the borders."""
    kinds = (
        lambda: random.choice(EDGES),
        lambda: random.randrange(1, 20_000),
        lambda: random.randrange(1, MIB),
        lambda: random.randrange(MIB, 12 * MIB),
        lambda: random.choice((64 * MIB, 100 * MIB, random.randrange(10 * MIB, 300 * MIB))),
        lambda: random.randrange(300 * MIB, 1200 * MIB),
    )
    return random.choices(kinds, weights=(2, 3, 3, 6, 5, 2))[0]()


class Pair:
    """The native bookkeeping and the model, driven together."""

    def __init__(self, native: Any, working_set: int, longest: int, high: float, low: float) -> None:
        self.sides = native.Bookkeeping(working_set, longest, high, low), Allocator(working_set, longest, high, low)
        self.live: list[int] = []
        self.refused = 0

    def step(self, action: str, value: int) -> None:
        if action in ("allocate", "scalar"):
            native, model = (outcome(side, value, action == "scalar") for side in self.sides)
            assert native == model
            if isinstance(native, tuple):
                self.live.append(native[0])
            else:
                self.refused += 1
        elif action == "free" and self.live:
            number = self.live.pop(value % len(self.live))
            for side in self.sides:
                side.free(number)
        elif action == "empty_cache":
            for side in self.sides:
                side.empty_cache()
        elif action == "high":
            for side in self.sides:
                side.set_high_watermark(value / 100)
        native, model = (side.stats() for side in self.sides)
        assert native == model


def outcome(side: Any, length: int, scalar: bool) -> tuple[int, int] | str:
    """The buffer's number and rounded size, or the words of the refusal."""
    try:
        found: tuple[int, int] = side.allocate(length, scalar)
    except (RuntimeError, OutOfMemory) as error:
        return str(error).split("\n")[0]  # torch adds a C++ stack below where TORCH_SHOW_CPP_STACKTRACES is set
    return found


def script(seed: int, steps: int) -> tuple[tuple[int, int, float, float], list[Step]]:
    """Limits, and what is done under them."""
    chance = random.Random(seed)
    working_set = chance.choice((2, 4, 6)) * GIB + chance.choice((0, 1, 700_001))
    high = chance.choice((0.0, 0.7, 1.0, 1.7))
    low = chance.choice((0.0, 0.3, (high or 2) * 0.8))
    actions = chance.choices(("allocate", "free", "scalar", "empty_cache", "high"), (54, 42, 2, 1, 1), k=steps)
    values = {"free": lambda: chance.randrange(10**6), "high": lambda: chance.choice((0, 90, 130))}
    return (working_set, chance.choice((800 * MIB, 4 * GIB)), high, low), [
        (action, values.get(action, lambda: size(chance))()) for action in actions
    ]


@pytest.mark.parametrize("seed", range(40))
def test_every_step_is_the_models(device: Device, seed: int) -> None:
    """Sizes, heaps, reuse, garbage collection, refusals and their words, over 250 random steps for each seed."""
    limits, steps = script(seed, 250)
    pair = Pair(device._native, *limits)
    for action, value in steps:
        pair.step(action, value)


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.integers(1, 3),
    st.lists(
        st.one_of(
            st.tuples(st.just("allocate"), st.one_of(st.sampled_from(EDGES), st.integers(1, 700 * MIB))),
            st.tuples(st.just("free"), st.integers(0, 30)),
            st.tuples(st.just("empty_cache"), st.just(0)),
        ),
        max_size=40,
    ),
)
def test_short_sequences_are_the_models(device: Device, gigabytes: int, steps: list[Step]) -> None:
    """The same, with sequences that hypothesis can shorten to the step that differs."""
    pair = Pair(device._native, gigabytes * GIB, GIB, 1.0, 0.5)
    for action, value in steps:
        pair.step(action, value)


def heaps(device: Device, high: float = 0.0, low: float = 0.0) -> Any:
    """Bookkeeping of a device with a working set of 4 GiB."""
    return device._native.Bookkeeping(working_set=4 * GIB, longest_buffer=2 * GIB, high=high, low=low)


@pytest.mark.parametrize(
    ("length", "rounded", "heap"),
    [
        (1, 256, 8 * MIB),
        (4000, 4096, 8 * MIB),
        (MIB, MIB, 8 * MIB),
        (MIB + 1, MIB + 256, 32 * MIB),
        (10 * MIB - 1, 10 * MIB, GIB),
        (10 * MIB - 256, 10 * MIB - 256, 32 * MIB),
        (512 * MIB - 256, 512 * MIB - 256, GIB),
        (512 * MIB, 512 * MIB, 512 * MIB),
        (GIB + 1, GIB + 256, GIB + 2 * MIB),
    ],
)
def test_sizes_and_heaps(device: Device, length: int, rounded: int, heap: int) -> None:
    """Lengths are rounded to 256 bytes; heaps have 8 MiB, 32 MiB or 1 GiB, or hold one buffer alone."""
    book = heaps(device)
    assert book.allocate(length)[1] == rounded
    assert book.stats() == {"allocated": rounded, "driver": heap, "heaps": 1, "cached_buffers": 0}


def test_the_best_fitting_buffer_is_reused_up_to_32_mib_too_long(device: Device) -> None:
    """Shortest first; what is longer by more is left alone while a heap has room."""
    book = heaps(device)
    longer, shorter = book.allocate(140 * MIB)[0], book.allocate(120 * MIB)[0]
    book.free(longer)
    book.free(shorter)
    assert book.allocate(110 * MIB) == (shorter, 120 * MIB)
    assert book.allocate(108 * MIB) == (longer, 140 * MIB)
    book.free(longer)
    assert book.allocate(108 * MIB - 256)[1] == 108 * MIB - 256
    assert book.stats()["driver"] == GIB and book.stats()["cached_buffers"] == 1


def test_a_long_buffer_makes_room_where_no_heap_has_any(device: Device) -> None:
    """It goes back to its heap, which stays, and the short one is cut out of it."""
    book = heaps(device)
    book.free(book.allocate(GIB)[0])
    assert book.allocate(64 * MIB)[1] == 64 * MIB
    assert book.stats() == {"allocated": 64 * MIB, "driver": GIB, "heaps": 1, "cached_buffers": 0}


@pytest.mark.parametrize(("spare", "heap"), [(MIB, GIB), (MIB - 1, 20 * MIB)])
def test_heaps_are_made_to_measure_near_the_low_watermark(device: Device, spare: int, heap: int) -> None:
    """torch counts what is left in whole MiB: with less than one, a heap is as long as its buffer."""
    book = device._native.Bookkeeping(working_set=GIB + spare, longest_buffer=2 * GIB, high=2.0, low=1.0)
    book.allocate(GIB)
    book.allocate(20 * MIB)
    assert book.stats()["driver"] == GIB + heap


def test_garbage_is_collected_down_to_the_low_watermark(device: Device) -> None:
    """Of four cached buffers of equal age two are enough; what is cached is not shorter than what is wanted."""
    book = heaps(device, low=0.25)
    for number in [book.allocate(512 * MIB)[0] for _ in range(4)]:
        book.free(number)
    book.allocate(600 * MIB)
    assert book.stats() == {"allocated": 600 * MIB, "driver": GIB + 600 * MIB, "heaps": 3, "cached_buffers": 2}


def test_caches_are_given_back_before_an_allocation_fails(device: Device) -> None:
    """Longest buffers of the pool first, then all of all pools; what is in use stays."""
    book = heaps(device, high=1.0)
    kept = [book.allocate(GIB)[0] for _ in range(4)]
    for number in kept[1:]:
        book.free(number)
    assert book.stats()["driver"] == 4 * GIB and book.stats()["cached_buffers"] == 3
    assert book.allocate(2 * GIB - 256)[1] == 2 * GIB - 256
    assert book.stats()["driver"] == 4 * GIB and book.stats()["cached_buffers"] == 1
    # A cached buffer would do, but so near the limit torch gives it back and makes another.
    assert book.allocate(GIB - 256)[1] == GIB - 256
    with pytest.raises(
        RuntimeError, match=r"MPS allocated: 4.00 GiB, other allocations: 0 bytes, max allowed: 4.00 GiB"
    ):
        book.allocate(256)


def test_without_a_limit_the_text_names_none(device: Device) -> None:
    """`format_size` and the two forms of the message, against the model's."""
    for high in (0.0, 0.5, 1.234):
        model = Allocator(4 * GIB, 2 * GIB, high, 0.0)
        for length in (0, 1024, 1025, MIB, MIB + 256, GIB, 3 * GIB):
            assert heaps(device, high).out_of_memory(length) == model.words(length)


@pytest.mark.parametrize(("high", "low", "found"), [(2.1, 0.0, "high"), (-1.0, 0.0, "high"), (0.9, 1.4, "low")])
def test_watermarks_that_do_not_fit_are_refused(device: Device, high: float, low: float, found: str) -> None:
    """In torch's words; without a hard limit the soft one may be up to 2."""
    wrong = {"high": high, "low": low}[found]
    with pytest.raises(RuntimeError, match=f"invalid {found} watermark ratio {wrong:g}"):
        heaps(device, high, low)
    assert heaps(device, 0.0, 2.0).stats()["driver"] == 0


REAL = """
import random
import torch
from patcher.macs.mac import max_buffer_bytes, parse
from patcher.simulator import start
from tests.simulator.mps_allocator import MIB, Allocator, OutOfMemory
from tests.simulator.test_memory_allocator import size

mac = parse("M1 8GB")
device = start(mac)
model = Allocator(mac.recommended_max_bytes, max_buffer_bytes(mac.memory_bytes, mac.macos), 1.7, 1.4)
chance, live, refused, peak = random.Random(5), [], 0, 0
for step in range(1500):
    action = chance.random()
    if action < (0.75 if step % 500 < 300 else 0.3) or not live:
        length = size(chance)
        try:
            expected = model.allocate(length)[0]
        except OutOfMemory as error:
            expected = str(error)
        try:
            live.append((torch.empty(length, dtype=torch.uint8, device="mps"), expected))
        except RuntimeError as error:
            assert str(error).split(chr(10))[0] == expected, (step, str(error), expected)
            refused += 1
    elif action < 0.99:
        model.free(live.pop(chance.randrange(len(live)))[1])
    else:
        torch.mps.empty_cache()
        model.empty_cache()
    stats, memory = model.stats(), device.memory()
    peak = max(peak, stats["driver"])
    assert torch.mps.current_allocated_memory() == memory.allocated == stats["allocated"], step
    assert torch.mps.driver_allocated_memory() == memory.driver == memory.reserved == stats["driver"], step
    assert (memory.heaps, memory.cached_buffers) == (stats["heaps"], stats["cached_buffers"]), step
    assert memory.current == sum(tensor.nbytes for tensor, _ in live) and memory.blocks == len(live)
assert memory.peak_driver == peak == torch.accelerator.max_memory_reserved()
assert refused == memory.refused > 10
"""


@pytest.mark.slow
def test_tensors_are_accounted_as_the_model_says() -> None:
    """The same through torch: 1500 tensors on an 8 GB Mac, in a process of their own, to the byte and to the word."""
    run_python("-c", REAL)
