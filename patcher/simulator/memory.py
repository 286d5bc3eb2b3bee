"""What the simulated device holds, and the limits that the user has set for it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from patcher import environment

DEFAULT_LOW = 1.4
"""torch's own default of the soft limit (ATen/mps/MPSAllocator.h, torch 2.13.0)."""


@dataclass(frozen=True)
class Memory:
    """Bytes of the simulated device.

    ``current`` and ``peak`` are what tensors hold. The others are what torch's allocator on a Mac would hold for them:
    it rounds each tensor up to a buffer, cuts buffers out of larger heaps, and keeps both when the tensor has gone.

    Attributes:
        current: held by live storages, as it was asked for.
        peak: the highest value of ``current`` since the start or the last reset.
        blocks: number of live storages that hold something.
        limit: an allocation fails that would take ``driver`` beyond it; 0 means none.
        allocated: buffers of live storages: ``torch.mps.current_allocated_memory()``.
        peak_allocated: the highest value of ``allocated``.
        driver: what Metal has given to the process: ``torch.mps.driver_allocated_memory()``.
        peak_driver: the highest value of ``driver``.
        heaps: number of heaps that make up ``driver``.
        cached_buffers: number of buffers that wait for another tensor of their size.
        refused: number of allocations that failed since the start.
    """

    current: int
    peak: int
    blocks: int
    limit: int
    allocated: int
    peak_allocated: int
    driver: int
    peak_driver: int
    heaps: int
    cached_buffers: int
    refused: int

    @property
    def reserved(self) -> int:
        """Heaps of torch's allocator. Nothing else takes Metal's memory here, so it is ``driver``."""
        return self.driver

    @property
    def peak_reserved(self) -> int:
        """The highest value of ``reserved``."""
        return self.peak_driver

    @property
    def cached(self) -> int:
        """Reserved, and not under a live tensor: cached buffers and what no buffer has been cut from."""
        return self.reserved - self.allocated


def watermarks() -> tuple[float, float]:
    """The hard and the soft limit as multiples of the recommended maximum; torch reads them when its allocator starts.

    Raises:
        InvalidSwitch: one of the variables is no number. torch takes such a text for 0, which removes the limit.
    """
    return _ratio(environment.HIGH, environment.DEFAULT_HIGH), _ratio(environment.LOW, DEFAULT_LOW)


def _ratio(name: str, default: float) -> float:
    text = environment.value_of(name)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        environment.ratio(name)  # says what is wrong
        raise
