"""torch 2.13's MPS allocator, written down plainly for the tests: lists, linear searches, ages counted one by one.

Written from the declarations in the wheel (ATen/mps/MPSAllocator.h) and from MPSAllocator.mm; names follow torch's.
What Metal decides: buffers are multiples of 256 bytes, a heap puts a buffer where it first fits, and among equals the
oldest is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 2**20
PAGE = 2**14


class OutOfMemory(Exception):
    """No room; the argument is torch's text."""


@dataclass(eq=False)
class Heap:
    """Memory from Metal. `buffers` holds what lies in it, in use or cached."""

    pool: Pool
    total: int
    is_split: bool
    number: int
    buffers: list[Buffer] = field(default_factory=list)

    def gaps(self) -> list[tuple[int, int]]:
        edges = sorted((buffer.offset, buffer.offset + buffer.size) for buffer in self.buffers)
        starts = [0] + [end for _, end in edges]
        ends = [begin for begin, _ in edges] + [self.total]
        return [(begin, end) for begin, end in zip(starts, ends, strict=True) if begin < end]

    def available(self) -> int:
        """The longest free piece that starts on a page."""
        return max((end - -(-begin // PAGE) * PAGE for begin, end in self.gaps()), default=0)

    def place(self, size: int) -> int:
        return next(begin for begin, end in self.gaps() if end - begin >= size)


@dataclass(eq=False)
class Buffer:
    """What backs a storage."""

    size: int
    heap: Heap
    offset: int
    number: int
    gc_count: int = 0


@dataclass(eq=False)
class Pool:
    """Heaps of one kind, and the free buffers in them."""

    large: bool
    heaps: list[Heap] = field(default_factory=list)
    available_buffers: list[Buffer] = field(default_factory=list)

    def available_size(self) -> int:
        return sum(buffer.size for buffer in self.available_buffers)

    def heap_for(self, size: int) -> Heap | None:
        fitting = [heap for heap in self.heaps if heap.available() >= max(size, 0)]
        return min(fitting, key=lambda heap: (heap.available(), heap.number), default=None)

    def buffer_for(self, size: int) -> Buffer | None:
        fitting = [buffer for buffer in self.available_buffers if buffer.size >= size]
        return min(fitting, key=lambda buffer: (buffer.size, buffer.number), default=None)


def in_words(size: int) -> str:
    """c10::CachingAllocator::format_size"""
    if size <= 1024:
        return f"{size} bytes"
    for unit, name in ((2**10, "KiB"), (2**20, "MiB")):
        if size <= unit * 1024:
            return f"{size / unit:.2f} {name}"
    return f"{size / 2**30:.2f} GiB"


def words(driver: int, high: int, size: int) -> str:
    """torch's text where ``size`` bytes find no room."""
    limit = f", max allowed: {in_words(high)}" if high else ""
    hint = (
        " Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for memory allocations"
        " (may cause system failure)."
    )
    return (
        f"MPS backend out of memory (MPS allocated: {in_words(driver)}, other allocations: 0 bytes{limit})."
        f" Tried to allocate {in_words(size)} on shared pool.{hint if high else ''}"
    )


class Allocator:
    """MPSHeapAllocatorImpl."""

    def __init__(self, working_set: int, longest_buffer: int, high: float, low: float) -> None:
        self.longest_buffer = longest_buffer
        self.working_set = working_set
        self.small, self.large, self.scalar = Pool(large=False), Pool(large=True), Pool(large=False)
        self.in_use: dict[int, Buffer] = {}
        self.numbers = 0
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
        return sum(heap.total for pool in self.pools for heap in pool.heaps)

    def stats(self) -> dict[str, int]:
        return {
            "allocated": sum(buffer.size for buffer in self.in_use.values()),
            "driver": self.driver,
            "heaps": sum(len(pool.heaps) for pool in self.pools),
            "cached_buffers": sum(len(pool.available_buffers) for pool in self.pools),
        }

    def allocate(self, length: int, scalar: bool = False) -> tuple[int, int]:
        """alloc_buffer_block: the buffer's number and size."""
        if length >= self.longest_buffer:
            raise OutOfMemory(f"Invalid buffer size: {in_words(length)}")
        size = -(-length // 256) * 256
        pool = self.scalar if scalar else self.small if size <= MIB else self.large
        pressure = pool.large and bool(self.low) and self.low - self.driver < MIB
        buffer, pressure = self.get_free_buffer(pool, size, pressure)
        if buffer is None:
            if pressure and size < pool.available_size():
                self.garbage_collect(pool)
            buffer = self.alloc_buffer(pool, size, pressure)
        if buffer is None and self.release_available(pool, size):
            buffer = self.alloc_buffer(pool, size, pressure)
        if buffer is None:
            self.empty_cache()
            buffer = self.alloc_buffer(pool, size, pressure)
        if buffer is None:
            raise OutOfMemory(self.words(size))
        self.in_use[buffer.number] = buffer
        return buffer.number, buffer.size

    def words(self, size: int) -> str:
        return words(self.driver, self.high, size)

    def free(self, number: int) -> None:
        """free_buffer"""
        buffer = self.in_use.pop(number)
        buffer.gc_count = 0
        buffer.heap.pool.available_buffers.append(buffer)

    def empty_cache(self) -> None:
        """release_cached_buffers"""
        for pool in self.pools:
            for buffer in sorted(pool.available_buffers, key=lambda one: (one.size, one.number)):
                self.release(buffer)

    def over(self, size: int) -> bool:
        return bool(self.high) and self.driver + size > self.high

    def get_free_buffer(self, pool: Pool, size: int, pressure: bool) -> tuple[Buffer | None, bool]:
        if self.over(size):
            return None, pressure
        if self.low and pool.large:
            for waiting in pool.available_buffers:
                waiting.gc_count += 1
        buffer = pool.buffer_for(size)
        if buffer is None:
            return None, pressure
        if buffer.size > size + 32 * MIB:
            if pool.heap_for(size) is not None:
                return None, pressure
            self.release(buffer, remove_empty_heap=False)
            return None, False
        pool.available_buffers.remove(buffer)
        return buffer, pressure

    def alloc_buffer(self, pool: Pool, size: int, pressure: bool) -> Buffer | None:
        if self.over(size):
            return None
        heap = pool.heap_for(size)
        if heap is None:
            heap = self.create_heap(pool, size, pressure)
        self.numbers += 1
        buffer = Buffer(size, heap, heap.place(size), self.numbers)
        heap.buffers.append(buffer)
        return buffer

    def create_heap(self, pool: Pool, size: int, pressure: bool) -> Heap:
        """HeapBlock::createHeapBlock"""
        alone = False
        if size <= MIB:
            total = 8 * MIB
        elif size < 10 * MIB:
            total = 32 * MIB
        elif size < 512 * MIB and not pressure:
            total = 1024 * MIB
        else:
            total, alone = -(-size // (2 * MIB)) * 2 * MIB, True
        self.numbers += 1
        pool.heaps.append(Heap(pool, total, not alone, self.numbers))
        return pool.heaps[-1]

    def release(self, buffer: Buffer, remove_empty_heap: bool = True) -> None:
        heap = buffer.heap
        heap.pool.available_buffers.remove(buffer)
        heap.buffers.remove(buffer)
        if remove_empty_heap and not heap.buffers:
            heap.pool.heaps.remove(heap)

    def release_available(self, pool: Pool, size: int) -> bool:
        """release_available_cached_buffers"""
        if not pool.available_buffers:
            return False
        buffer = pool.buffer_for(size)
        if buffer is not None:
            self.release(buffer)
            return True
        released = 0
        for longest in sorted(pool.available_buffers, key=lambda one: (one.size, one.number), reverse=True):
            released += longest.size
            self.release(longest)
            if released >= size:
                return True
        return False

    def garbage_collect(self, pool: Pool) -> None:
        """garbage_collect_cached_buffers"""
        target, reclaimed = self.driver - self.low, 0
        if self.driver < self.low:
            return
        age = sum(buffer.gc_count for buffer in pool.available_buffers)
        progress = True
        while reclaimed < target and progress and pool.available_buffers:
            threshold = age / len(pool.available_buffers)
            progress = False
            for buffer in sorted(pool.available_buffers, key=lambda one: (one.size, one.number)):
                if reclaimed >= target:
                    break
                if buffer.gc_count >= threshold:
                    progress = True
                    reclaimed += buffer.size
                    age -= buffer.gc_count
                    self.release(buffer, remove_empty_heap=not buffer.heap.is_split)
