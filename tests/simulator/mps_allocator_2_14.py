"""torch 2.14's MPS allocator, written down plainly for the tests: a heap is a list of ranges, every search is linear.

Written from the declarations in the wheel (ATen/mps/MPSAllocator.h) and from MPSAllocator.mm; names follow torch's.
What Metal decides: buffers are multiples of 256 bytes, and among equals the oldest heap is chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.simulator.mps_allocator import MIB, PAGE, OutOfMemory, in_words, words


@dataclass(eq=False)
class Block:
    """A range of a heap: in use, or free. `number` is the buffer's that lies on it, 0 where none does."""

    size: int
    heap: Heap
    number: int = 0
    in_use: bool = False

    def offset(self) -> int:
        return sum(block.size for block in self.heap.blocks[: self.heap.blocks.index(self)])


@dataclass(eq=False)
class Heap:
    """Memory from Metal. Its blocks lie one behind the other and fill it."""

    total_size: int
    number: int
    blocks: list[Block] = field(default_factory=list)

    def is_free(self) -> bool:
        return not any(block.in_use for block in self.blocks)


@dataclass(eq=False)
class Pool:
    """Heaps of one kind, oldest first."""

    large: bool
    min_split: int
    heaps: list[Heap] = field(default_factory=list)

    def free(self) -> list[Block]:
        """By size, then by heap and place."""
        blocks = [block for heap in self.heaps for block in heap.blocks if not block.in_use]
        return sorted(blocks, key=lambda block: (block.size, block.heap.number, block.offset()))


def allocation_size(length: int, longest_buffer: int) -> int:
    """get_allocation_size: beyond 1 MiB one of 32 steps between two powers of two, within the heap's kind."""
    aligned = math.ceil(length / 256) * 256
    if aligned <= MIB:
        return aligned
    step = max(2 ** (aligned.bit_length() - 1) // 32, PAGE)
    stepped = math.ceil(aligned / step) * step
    crosses = any(aligned < border <= stepped for border in (10 * MIB, 512 * MIB))
    return aligned if crosses or stepped >= longest_buffer else stepped


class Allocator:
    """MPSHeapAllocatorImpl."""

    def __init__(self, working_set: int, longest_buffer: int, high: float, low: float) -> None:
        self.longest_buffer = longest_buffer
        self.working_set = working_set
        self.small, self.large, self.scalar = Pool(False, 256), Pool(True, MIB), Pool(False, 256)
        self.in_use: dict[int, Block] = {}
        self.buffers = self.heaps = 0
        self.set_high_watermark(high)
        assert 0 <= low <= (high or 2)
        self.low = int(low * working_set)

    def set_high_watermark(self, ratio: float) -> None:
        self.high = int(ratio * self.working_set)

    @property
    def pools(self) -> tuple[Pool, ...]:
        return self.small, self.large, self.scalar

    @property
    def driver(self) -> int:
        return sum(heap.total_size for pool in self.pools for heap in pool.heaps)

    def stats(self) -> dict[str, int]:
        for pool in self.pools:
            for heap in pool.heaps:
                assert sum(block.size for block in heap.blocks) == heap.total_size
        return {
            "allocated": sum(block.size for block in self.in_use.values()),
            "driver": self.driver,
            "heaps": sum(len(pool.heaps) for pool in self.pools),
            "cached_buffers": sum(block.number != 0 for pool in self.pools for block in pool.free()),
        }

    def allocate(self, length: int, scalar: bool = False) -> tuple[int, int]:
        """alloc_buffer_block: the buffer's number and size."""
        if length >= self.longest_buffer:
            raise OutOfMemory(f"Invalid buffer size: {in_words(length)}")
        size = math.ceil(length / 256) * 256 if scalar else allocation_size(length, self.longest_buffer)
        pool = self.scalar if scalar else self.small if size <= MIB else self.large
        pressure = pool.large and bool(self.low) and self.low - self.driver < MIB
        block = self.get_free_buffer(pool, size)
        if block is None and pressure and size < sum(free.size for free in pool.free()):
            self.release_free_heaps(pool, self.driver - self.low)
        block = block or self.alloc_heap(pool, size, pressure) or self.get_free_buffer(pool, size)
        if block is None and self.release_free_heaps(pool, size):
            block = self.alloc_heap(pool, size, pressure)
        if block is None:
            self.empty_cache()
            block = self.get_free_buffer(pool, size) or self.alloc_heap(pool, size, pressure)
        if block is None:
            raise OutOfMemory(self.words(size))
        block.in_use = True
        self.in_use[block.number] = block
        return block.number, block.size

    def words(self, size: int) -> str:
        return words(self.driver, self.high, size)

    def free(self, number: int) -> None:
        """free_buffer"""
        self.in_use.pop(number).in_use = False

    def empty_cache(self) -> None:
        """release_cached_buffers"""
        for pool in self.pools:
            self.release_free_heaps(pool, 2**63)

    def over(self, size: int) -> bool:
        return bool(self.high) and self.driver + size > self.high

    def get_free_buffer(self, pool: Pool, size: int) -> Block | None:
        if self.over(size):
            return None
        fitting = [block for block in pool.free() if block.size >= size]
        for block in fitting:
            if block.number:
                if block.size - size < pool.min_split:
                    return self.split_free_block(pool, block, size)
                break
        if fitting:
            return self.split_free_block(pool, fitting[0], size)
        return self.coalesce_free_blocks(pool, size)

    def split_free_block(self, pool: Pool, block: Block, size: int) -> Block:
        remainder = block.size - size
        if remainder >= pool.min_split:
            block.size, block.number = size, 0
            block.heap.blocks.insert(block.heap.blocks.index(block) + 1, Block(remainder, block.heap))
        if not block.number:
            self.buffers += 1
            block.number = self.buffers
        return block

    def coalesce_free_blocks(self, pool: Pool, size: int) -> Block | None:
        for heap in pool.heaps:
            run: list[Block] = []
            for block in heap.blocks:
                run = [] if block.in_use else [*run, block]
                if sum(each.size for each in run) >= size:
                    return self.split_free_block(pool, self.merge_free_blocks(heap, run), size)
        return None

    def merge_free_blocks(self, heap: Heap, run: list[Block]) -> Block:
        first, *others = run
        if others:
            first.number = 0
            first.size = sum(block.size for block in run)
            heap.blocks = [block for block in heap.blocks if block not in others]
        return first

    def alloc_heap(self, pool: Pool, size: int, pressure: bool) -> Block | None:
        if self.over(size):
            return None
        if size <= MIB:
            total = 8 * MIB
        elif size < 10 * MIB:
            total = 32 * MIB
        elif size < 512 * MIB and not pressure:
            total = 1024 * MIB
        else:
            total = math.ceil(size / (2 * MIB)) * 2 * MIB
        self.heaps += 1
        heap = Heap(total, self.heaps)
        heap.blocks.append(Block(total, heap))
        pool.heaps.append(heap)
        return self.split_free_block(pool, heap.blocks[0], size)

    def release_free_heaps(self, pool: Pool, target: int) -> int:
        released = 0
        for heap in list(pool.heaps):
            if released < target and heap.is_free():
                released += heap.total_size
                pool.heaps.remove(heap)
        return released
