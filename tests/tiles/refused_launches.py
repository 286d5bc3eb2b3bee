"""Launches that the shim must refuse, of kernels that are right. Marked lines are as in ``refused.py``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.refused import X, out, refused


@triton.jit
def good_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n), mask=at < n)


@refused(good_kernel, "grid")
def grid_of_no_dimension() -> None:
    """()."""
    good_kernel[()](X, out(), 16, 16)


@refused(good_kernel, "grid")
def grid_of_four_dimensions() -> None:
    """(1, 1, 1, 1)."""
    good_kernel[(1, 1, 1, 1)](X, out(), 16, 16)


@refused(good_kernel, "grid")
def grid_that_is_no_whole_number() -> None:
    """(1.5,)."""
    good_kernel[(1.5,)](X, out(), 16, 16)


@refused(good_kernel, "grid")
def grid_below_zero() -> None:
    """(-1,)."""
    good_kernel[(-1,)](X, out(), 16, 16)


@refused(good_kernel, "'N'")
def missing_argument() -> None:
    """One argument too few."""
    good_kernel[(1,)](X, out(), 16)


@refused(good_kernel)
def too_many_arguments() -> None:
    """One argument too many."""
    good_kernel[(1,)](X, out(), 16, 16, 5)


@refused(good_kernel, "SIZE")
def unknown_argument() -> None:
    """A name that neither the kernel nor the compiler has."""
    good_kernel[(1,)](X, out(), 16, N=16, SIZE=3)


@refused(good_kernel, "'n'")
def argument_given_twice() -> None:
    """By place and by name."""
    good_kernel[(1,)](X, out(), 16, n=16, N=16)


@refused(good_kernel, "str")
def argument_of_no_known_type() -> None:
    """A string that is no constant."""
    good_kernel[(1,)](X, out(), "16", 16)


@refused(good_kernel, "meta")
def tensors_on_two_devices() -> None:
    """A tensor elsewhere."""
    good_kernel[(1,)](X, out().to("meta"), 16, 16)


@triton.jit
def outside_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at + 8)  # <-
    tl.store(out_ptr + at, x)


@refused(outside_kernel)
def load_outside() -> None:
    """Without a mask, half of it beyond the storage."""
    outside_kernel[(1,)](X, out(), 16)


@triton.jit
def far_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at - 4, tl.load(x_ptr + at))  # <-


@refused(far_kernel)
def store_outside() -> None:
    """Before the storage."""
    far_kernel[(1,)](X, out(), 16)


@triton.jit
def addresses_kernel(table_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x_ptr = tl.load(table_ptr + tl.program_id(0)).to(tl.pointer_type(tl.float32))
    tl.store(out_ptr + at, tl.load(x_ptr + at))  # <-


@refused(addresses_kernel, "address")
def table_of_no_addresses() -> None:
    """Integers that are the address of no living tensor."""
    addresses_kernel[(1,)](torch.tensor([12345]), out(), 16)


@triton.jit
def waiting_kernel(flags_ptr, N: tl.constexpr):
    place = tl.program_id(0)
    while tl.load(flags_ptr + (place + 1) % N) == 0:  # <-
        pass
    tl.store(flags_ptr + place, 1)


@refused(waiting_kernel, "waits for what a later program writes")
def waiting_for_a_later_program() -> None:
    """Every program waits for the next one, and the last for the first."""
    waiting_kernel[(3,)](torch.zeros(3, dtype=torch.int32), 3)
