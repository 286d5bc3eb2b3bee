"""Launches one after the other on the simulated Mac, and which of them are looked at anew.

    python -m tests.tiles.warm_launches

Prints one JSON object.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch

from patcher.simulator import startup
from patcher.tiles import admission, backends
from patcher.tiles.launch import Kernel
from tests.tiles.jit import Jit, jit, tl


@jit
def mixed(x, y, n, by, pair, flag=3, N: tl.constexpr = 64, EVEN: tl.constexpr = False):
    at = tl.program_id(0) * N + tl.arange(0, N)
    a = tl.load(x + at, at < n, 0) * by + flag
    if EVEN:
        a = tl.where(at % 2 == 0, a, 0)
    if pair is not None:
        a += pair[0] - pair[1]
    tl.store(y + at, a, at < n)


@jit
def paired(x, out, pair=(2, 3), N: tl.constexpr = 64):
    at = tl.arange(0, N)
    tl.store(out + at, tl.load(x + at) * pair[0] + pair[1])


@jit
def paired_with_one(x, out, pair=(2, 1), N: tl.constexpr = 64):
    at = tl.arange(0, N)
    tl.store(out + at, tl.load(x + at) * pair[0] + pair[1])


def main() -> None:
    startup.start("M1")
    admission.why_not = lambda: ""  # type: ignore[assignment]
    anew: list[str] = []
    launch_anew = Kernel.launch_anew

    def noticed(self: Kernel, kind: Any, *args: Any) -> Any:
        if self is mixed.kernel:
            anew.append(current)
        return launch_anew(self, kind, *args)

    Kernel.launch_anew = noticed  # type: ignore[method-assign]
    expected, wrong = [], []
    for current, is_new, launch in launches():
        expected += [current] if is_new else []
        if not same(*launch):
            wrong.append(current)
    found = {"anew": [*anew], "expected anew": expected, "wrong": wrong, "defaults": tuples_as_defaults()}
    print(json.dumps({**found, **switched_off()}))


def launches() -> Any:
    """A name for each launch, whether it is the first of its kind, and grid, arguments and keywords."""

    def x(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return (torch.randn(200, generator=torch.Generator().manual_seed(1)) * 20).to(dtype).to("mps")

    y, whole = torch.zeros(200, device="mps"), x()
    by_meta = lambda meta: (meta["n"] // meta["N"] + 1,)  # noqa: E731
    yield "first", True, ((3,), (x(), y, 150, 2.5, None), {})
    yield "other numbers", False, ((3, 1), (x(), y, 190, -0.5, None), {})
    yield "a wider grid", True, ((4, 1), (x(), y, 190, 1.5, None), {})
    yield "twice as wide", False, ((6,), (x(), y, 160, 2.5, None), {})
    yield "a list for a grid", False, ([2], (x(), y, 100, 2.5, None), {})
    yield "a function for a grid", False, (by_meta, (x(), y, 130, 2.5, None), {})
    yield "no programs", True, ((0,), (x(), y, 130, 2.5, None), {})
    yield "a tensor as extent", True, ((torch.tensor(2),), (x(), y, 130, 2.5, None), {})
    yield "half", True, ((3,), (x(torch.float16), y, 150, 2.5, None), {})
    yield "half again", False, ((3,), (x(torch.float16), y, 120, 3.5, None), {})
    yield "a whole number", True, ((3,), (x(), y, 150, 2, None), {})
    yield "another one", False, ((3,), (x(), y, 150, 7, None), {})
    yield "one", True, ((3,), (x(), y, 150, 1, None), {})
    yield "a wide one", True, ((3,), (x(), y, 150, 1 << 40, None), {})
    yield "an unsigned one", True, ((3,), (x(), y, 150, (1 << 63) + 5, None), {})
    yield "another unsigned one", False, ((3,), (x(), y, 150, (1 << 64) - 5, None), {})
    yield "a default", True, ((3,), (x(), y, 150, 2.5, None, 9), {})
    yield "by name", True, ((3,), (x(), y), {"n": 150, "pair": None, "by": 2.5})
    yield "by name again", False, ((3,), (x(), y), {"n": 110, "pair": None, "by": 1.5})
    yield "a function and names", False, (by_meta, (x(), y), {"n": 110, "pair": None, "by": 1.5})
    yield "in another order", True, ((3,), (x(), y), {"by": 2.5, "n": 150, "pair": None})
    yield "a constant", True, ((3,), (x(), y, 150, 2.5, None), {"EVEN": True})
    yield "warps", True, ((3,), (x(), y, 150, 2.5, None), {"num_warps": 1})
    yield "a tuple", True, ((3,), (x(), y, 150, 2.5, (5, 7)), {})
    yield "the tuple again", True, ((3,), (x(), y, 150, 2.5, (9, 7)), {})
    yield "in place", True, ((3,), (whole, whole, 150, 2.5, None), {})
    yield "in place again", False, ((3,), (whole, whole, 150, 2.5, None), {})
    yield "two halves", False, ((1,), (whole[100:], whole[:100], 60, 2.5, None), {})
    yield "the first again", False, ((3,), (x(), y, 150, 2.5, None), {})


def same(grid: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the kernel gives what torch operators give on copies on the CPU, for a kernel of its own."""
    copies: dict[int, torch.Tensor] = {}
    carried = [_carried(each, copies) if isinstance(each, torch.Tensor) else each for each in args]
    mixed[grid](*args, **kwargs)
    Jit(mixed.fn)[grid](*carried, **kwargs)
    found = [each.cpu() for each in args if isinstance(each, torch.Tensor)]
    right = [each for each in carried if isinstance(each, torch.Tensor)]
    return all(torch.allclose(a, b, rtol=1e-6) for a, b in zip(found, right, strict=True))


def _carried(tensor: torch.Tensor, copies: dict[int, torch.Tensor]) -> torch.Tensor:
    key = tensor.untyped_storage().data_ptr()
    if key not in copies:
        copies[key] = tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0).cpu()
    return copies[key].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def tuples_as_defaults() -> list[bool]:
    """Whether a kernel that has them is right each time, as the first launch is."""
    x, out, right = torch.randn(64, device="mps"), torch.zeros(64, device="mps"), []
    for _ in range(2):
        for kernel, added in ((paired, 3.0), (paired_with_one, 1.0)):
            kernel[(1,)](x.zero_().add_(torch.arange(64, device="mps")), out.zero_())
            right.append(torch.equal(out, x * 2 + added))
    return right


def switched_off() -> dict[str, int]:
    """With the switch what had gone its way runs with torch."""
    os.environ["PATCHER_TRITON"] = "torch"
    x = torch.zeros(64, device="mps")
    backends.launches.clear()
    for _ in range(2):
        mixed[(1,)](x, x, 64, 2.5, None)
    ran = {launched.back_end: (count, launched.why) for launched, count in backends.launches.items()}
    count, why = ran["torch"]
    return {"with torch": count, "switched off": count * (why == "PATCHER_TRITON is torch")}


if __name__ == "__main__":
    main()
