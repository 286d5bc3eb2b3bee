"""The account of heaps and buffers is that of torch's MPS allocator: compared step by step with a plain model of it.

torch 2.14 has another allocator than 2.13; each has its model.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patcher.simulator import Device
from tests.process import run_python
from tests.simulator import mps_allocator, mps_allocator_2_14
from tests.simulator.mps_allocator import MIB, OutOfMemory

GIB = 1024 * MIB
EDGES = (1, 8, 256, 257, MIB - 256, MIB, MIB + 1, 10 * MIB - 256, 10 * MIB, 42 * MIB, 512 * MIB - 1, 512 * MIB)

Step = tuple[str, int]
Torch = tuple[int, int]
MODELS: dict[Torch, Any] = {(2, 13): mps_allocator.Allocator, (2, 14): mps_allocator_2_14.Allocator}
"""By the release that brought it: what is later has the last one."""

every_torch = pytest.mark.parametrize("torch", MODELS)


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

    def __init__(self, native: Any, torch: Torch, *limits: float) -> None:
        self.sides = native.Bookkeeping(torch, *limits), MODELS[torch](*limits)
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


@every_torch
@pytest.mark.parametrize("seed", range(40))
def test_every_step_is_the_models(device: Device, torch: Torch, seed: int) -> None:
    """Sizes, heaps, reuse, garbage collection, refusals and their words, over 250 random steps for each seed."""
    limits, steps = script(seed, 250)
    pair = Pair(device._native, torch, *limits)
    for action, value in steps:
        pair.step(action, value)


@settings(max_examples=60, deadline=None, database=None)
@given(
    st.sampled_from(list(MODELS)),
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
def test_short_sequences_are_the_models(device: Device, torch: Torch, gigabytes: int, steps: list[Step]) -> None:
    """The same, with sequences that hypothesis can shorten to the step that differs."""
    pair = Pair(device._native, torch, gigabytes * GIB, GIB, 1.0, 0.5)
    for action, value in steps:
        pair.step(action, value)


def heaps(device: Device, torch: Torch, high: float = 0.0, low: float = 0.0) -> Any:
    """Bookkeeping of a device with a working set of 4 GiB."""
    return device._native.Bookkeeping(torch, working_set=4 * GIB, longest_buffer=2 * GIB, high=high, low=low)


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
    book = heaps(device, (2, 13))
    assert book.allocate(length)[1] == rounded
    assert book.stats() == {"allocated": rounded, "driver": heap, "heaps": 1, "cached_buffers": 0}


def test_the_best_fitting_buffer_is_reused_up_to_32_mib_too_long(device: Device) -> None:
    """Shortest first; what is longer by more is left alone while a heap has room."""
    book = heaps(device, (2, 13))
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
    book = heaps(device, (2, 13))
    book.free(book.allocate(GIB)[0])
    assert book.allocate(64 * MIB)[1] == 64 * MIB
    assert book.stats() == {"allocated": 64 * MIB, "driver": GIB, "heaps": 1, "cached_buffers": 0}


@every_torch
@pytest.mark.parametrize(("spare", "heap"), [(MIB, GIB), (MIB - 1, 20 * MIB)])
def test_heaps_are_made_to_measure_near_the_low_watermark(device: Device, torch: Torch, spare: int, heap: int) -> None:
    """torch counts what is left in whole MiB: with less than one, a heap is as long as its buffer."""
    book = device._native.Bookkeeping(torch, working_set=GIB + spare, longest_buffer=2 * GIB, high=2.0, low=1.0)
    book.allocate(GIB)
    book.allocate(20 * MIB)
    assert book.stats()["driver"] == GIB + heap


@pytest.mark.parametrize(("torch", "size"), [((2, 13), 600 * MIB), ((2, 14), 608 * MIB)])
def test_garbage_is_collected_down_to_the_low_watermark(device: Device, torch: Torch, size: int) -> None:
    """Of four cached buffers of equal age two are enough; what is cached is not shorter than what is wanted."""
    book = heaps(device, torch, low=0.25)
    for number in [book.allocate(512 * MIB)[0] for _ in range(4)]:
        book.free(number)
    book.allocate(600 * MIB)
    assert book.stats() == {"allocated": size, "driver": GIB + size, "heaps": 3, "cached_buffers": 2}


@pytest.mark.parametrize(("torch", "rest"), [((2, 13), 256), ((2, 14), 0)])
def test_caches_are_given_back_before_an_allocation_fails(device: Device, torch: Torch, rest: int) -> None:
    """Longest buffers or oldest heaps of the pool first, then all of all pools; what is in use stays."""
    book = heaps(device, torch, high=1.0)
    kept = [book.allocate(GIB)[0] for _ in range(4)]
    for number in kept[1:]:
        book.free(number)
    assert book.stats()["driver"] == 4 * GIB and book.stats()["cached_buffers"] == 3
    assert book.allocate(2 * GIB - 256)[1] == 2 * GIB - rest
    assert book.stats()["driver"] == 4 * GIB and book.stats()["cached_buffers"] == 1
    # A cached buffer would do, but so near the limit torch gives it back and makes another.
    assert book.allocate(GIB - 256)[1] == GIB - rest
    with pytest.raises(
        RuntimeError, match=r"MPS allocated: 4.00 GiB, other allocations: 0 bytes, max allowed: 4.00 GiB"
    ):
        book.allocate(256)


@every_torch
def test_without_a_limit_the_text_names_none(device: Device, torch: Torch) -> None:
    """`format_size` and the two forms of the message, against the model's."""
    for high in (0.0, 0.5, 1.234):
        model = MODELS[torch](4 * GIB, 2 * GIB, high, 0.0)
        for length in (0, 1024, 1025, MIB, MIB + 256, GIB, 3 * GIB):
            assert heaps(device, torch, high).out_of_memory(length) == model.words(length)


HAND_WORKED = """
allocate a  6291456    6291456   33554432 0 : 6 MiB, the beginning of a new heap of 32
allocate b  8388608   14680064   33554432 0 : 8 MiB, at 6
allocate c  8388608   23068672   33554432 0 : 8 MiB, at 14; 10 are left, at 22
free     a        0   16777216   33554432 1
free     b        0    8388608   33554432 2
allocate d  9961472   18874368   33554432 2 : 9.5 MiB, of the 10; half a MiB is no range of its own, so all 10 are d's
allocate e  9437184   28311552   33554432 0 : 9 MiB; 6 and 8 side by side are enough; 5 are left, at 9
free     c        0   19922944   33554432 1
allocate f  7864320   28311552   33554432 0 : 7.5 MiB, the cached buffer of 8 as it is
allocate g  5000000   33554432   33554432 0 : 5111808 in steps of 128 KiB; the 5 MiB at 9, for their rest is too short
allocate h  4194304   37748736   67108864 0 : 4 MiB; no room is left, a second heap of 32; 28 are left, at 4
allocate i      300   37749248   75497472 0 : 512; a heap of 8 MiB for short ones
free     i        0   37748736   75497472 1
allocate j      256   37748992   75497472 0 : half of the 512, for short rests stay of use
free     e        0   28311808   75497472 1
free     g        0   23068928   75497472 2
allocate k 14680064   37748992   75497472 2 : 14 MiB, of the 28 in the second heap, not of 9 and 5 in the first
allocate l 15728640   53477632 1149239296 2 : 15 MiB; 14 and 14 are free, each in a heap; a new one of 1 GiB
allocate m 14155776   68157696 1149239296 2 : 13.5 MiB, all of the 14 in the second heap
allocate n 14680064   82837760 1149239296 2 : 14 MiB, of the third heap: one range goes before two side by side
empty    -        0   82837760 1149239296 2 : a tensor lies in each heap
free     f        0   74449152 1149239296 3
free     d        0   63963392 1149239296 4
empty    -        0   63963392 1115684864 0 : the first heap goes, with what was cached in it
"""
"""What is done with which tensor of how many bytes; bytes in use, bytes of heaps, and cached buffers after it; why."""


def test_ranges_of_2_14_are_split_and_merged_as_worked_out_by_hand(device: Device) -> None:
    """Byte for byte, from the rules in MPSAllocator.mm: which range is taken, what is left, when a heap is made."""
    sides = device.native.Bookkeeping((2, 14), 8 * GIB, 4 * GIB, 0.0, 0.0), MODELS[2, 14](8 * GIB, 4 * GIB, 0.0, 0.0)
    for side in sides:
        numbers: dict[str, int] = {}
        for line in HAND_WORKED.strip().splitlines():
            action, name, *figures = line.partition(" :")[0].split()
            length, in_use, driver, cached = map(int, figures)
            if action == "allocate":
                numbers[name] = side.allocate(length)[0]
            elif action == "free":
                side.free(numbers[name])
            else:
                side.empty_cache()
            found = side.stats()
            assert (found["allocated"], found["driver"], found["cached_buffers"]) == (in_use, driver, cached), line


@pytest.mark.parametrize(
    ("length", "rounded", "heap"),
    [
        (MIB, MIB, 8 * MIB),
        (MIB + 1, MIB + 32 * 1024, 32 * MIB),
        (10 * MIB - 256, 10 * MIB - 256, 32 * MIB),
        (10 * MIB + 1, 10 * MIB + MIB // 4, GIB),
        (300 * MIB, 304 * MIB, GIB),
        (512 * MIB - 256, 512 * MIB - 256, GIB),
        (600 * MIB, 608 * MIB, 608 * MIB),
        (2 * GIB - MIB, 2 * GIB - MIB, 2 * GIB),
    ],
)
def test_sizes_of_2_14_have_steps(device: Device, length: int, rounded: int, heap: int) -> None:
    """32 between two powers of two, at least a page; not into another kind of heap, nor to Metal's longest buffer."""
    book = heaps(device, (2, 14))
    assert book.allocate(length)[1] == rounded
    assert book.stats() == {"allocated": rounded, "driver": heap, "heaps": 1, "cached_buffers": 0}


def test_varying_lengths_reserve_less_with_2_14(device: Device) -> None:
    """Two tensors, each batch of another length: 2.13 keeps what no batch needs any more, 2.14 the two longest."""
    driver = {}
    for torch in MODELS:
        book = heaps(device, torch)
        for length in range(20 * MIB, 400 * MIB, 17 * MIB):
            for number in [book.allocate(length)[0] for _ in range(2)]:
                book.free(number)
        driver[torch] = book.stats()["driver"]
    assert driver == {(2, 13): 11 * GIB, (2, 14): GIB}


@pytest.mark.parametrize(("high", "low", "found"), [(2.1, 0.0, "high"), (-1.0, 0.0, "high"), (0.9, 1.4, "low")])
def test_watermarks_that_do_not_fit_are_refused(device: Device, high: float, low: float, found: str) -> None:
    """In torch's words; without a hard limit the soft one may be up to 2."""
    wrong = {"high": high, "low": low}[found]
    with pytest.raises(RuntimeError, match=f"invalid {found} watermark ratio {wrong:g}"):
        heaps(device, (2, 14), high, low)
    assert heaps(device, (2, 14), 0.0, 2.0).stats()["driver"] == 0


REAL = """
import random
import sys
import torch
from patcher.macs.mac import max_buffer_bytes, parse
from patcher.simulator import start
from tests.simulator.mps_allocator import MIB, OutOfMemory
from tests.simulator.test_memory_allocator import MODELS, size

major, minor = map(int, sys.argv[1:])
mac = parse(f"M1 8GB, torch {major}.{minor}")
device = start(mac)
model = MODELS[major, minor](mac.recommended_max_bytes, max_buffer_bytes(mac.memory_bytes, mac.macos), 1.7, 1.4)
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
@every_torch
def test_tensors_are_accounted_as_the_model_says(torch: Torch) -> None:
    """The same through torch: 1500 tensors on an 8 GB Mac, in a process of their own, to the byte and to the word."""
    run_python("-c", REAL, *torch)
