"""Runs one case on the simulated device and on the CPU, and says what came of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.utils import _pytree as pytree

from tests.fidelity.database import GRADIENT, Case, Database

EQUAL, CLOSE, DIFFERS, REFUSED, CRASHED = "equal", "close", "differs", "refused", "crashed"
PASSED = (EQUAL, CLOSE)
DEVICE = "mps:0"
SEED = 20


@dataclass(frozen=True)
class Observation:
    """What came of a case.

    Attributes:
        outcome: ``"equal"`` (to the last bit), ``"close"`` (within `torch.testing.assert_close`'s tolerances for the
            dtype), ``"differs"``, ``"refused"`` (an exception) or ``"crashed"`` (the process ended, or did not come
            to an end).
        samples: how many sample inputs were run, the last one included.
        error: of the sample that ended it: the exception's type and first line.
    """

    outcome: str
    samples: int
    error: str = ""


class _Different(Exception):
    """The two results are not close."""


def observe(database: Database, case: Case, limit: int | None = None) -> Observation:
    """Runs the case's sample inputs, in order, until one is refused or differs.

    Args:
        limit: the most sample inputs to run; None for all.
    """
    op, dtype = database.ops[case.op], getattr(torch, case.dtype)
    count, outcome = 0, EQUAL
    try:
        for sample in islice(_samples(op, dtype, case.direction), limit):
            count += 1
            if _compare_sample(op, sample, case.direction) == CLOSE:
                outcome = CLOSE
    except _Different as difference:
        return Observation(DIFFERS, count, str(difference))
    except Exception as error:  # noqa: BLE001 - whatever is raised is the observation
        return Observation(REFUSED, max(count, 1), f"{type(error).__name__}: {_first_line(error)}")
    return Observation(outcome, count)


def _samples(op: Any, dtype: torch.dtype, direction: str) -> Iterator[Any]:
    floating = dtype.is_floating_point or dtype.is_complex
    more = {} if direction == GRADIENT else {
        "include_conjugated_inputs": dtype.is_complex and op.test_conjugated_samples
    }
    yield from op.sample_inputs(DEVICE, dtype, requires_grad=floating, set_seed=True, **more)


def _compare_sample(op: Any, sample: Any, direction: str) -> str:
    reference = sample.transform(_to_cpu)
    if reference.kwargs.get("device") == DEVICE:
        reference.kwargs["device"] = "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = _call(op, sample)
        theirs, reference, widened = _call_reference(op, reference)
        if op.name == "unique" and not reference.kwargs.get("sorted", True):
            return EQUAL
        forward = compare(ours, theirs, any_dtype=widened)
        if direction != GRADIENT:
            return forward
        backward = _compare_gradients(_differentiable(ours, sample), _differentiable(theirs, reference), widened)
    return CLOSE if CLOSE in (forward, backward) else EQUAL


def _call(op: Any, sample: Any) -> Any:
    torch.manual_seed(SEED)  # of both devices: random operators draw the same numbers
    return op(sample.input, *sample.args, **sample.kwargs)


def _call_reference(op: Any, sample: Any) -> tuple[Any, Any, bool]:
    """The CPU's result, the sample that gave it, and whether it is in float32 for lack of a kernel.

    The CPU has fewer operators in half precision and bool. torch's own test computes the reference in float32 then, and
    rounds it.
    """
    try:
        return _call(op, sample), sample, False
    except NotImplementedError:
        widened = sample.transform(partial(_to_float32, sample.input.dtype))
        return _call(op, widened), widened, True


def _to_cpu(x: Any) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    copied = x.detach().conj().cpu().conj() if x.is_conj() else x.detach().cpu()
    return copied.requires_grad_(x.requires_grad)


def _to_float32(dtype: torch.dtype, x: Any) -> Any:
    if isinstance(x, torch.Tensor) and x.dtype == dtype:
        return x.detach().float().requires_grad_(x.requires_grad)
    return x


def _differentiable(result: Any, sample: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    outputs = [result] if isinstance(result, torch.Tensor) else list(result)
    arguments = pytree.tree_leaves(([sample.input, *sample.args], sample.kwargs))
    return [x for x in outputs if _needs_gradient(x)], [x for x in arguments if _needs_gradient(x)]


def _needs_gradient(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.requires_grad


def _compare_gradients(
    ours: tuple[list[torch.Tensor], list[torch.Tensor]],
    theirs: tuple[list[torch.Tensor], list[torch.Tensor]],
    widened: bool,
) -> str:
    if [len(part) for part in ours] != [len(part) for part in theirs]:
        raise _Different("another number of differentiable results or arguments")
    if not theirs[0]:
        return EQUAL
    torch.manual_seed(SEED)
    incoming = [torch.rand(x.shape, dtype=torch.float64).to(x.dtype) for x in ours[0]]
    gradients = [
        torch.autograd.grad(
            outputs, arguments, [g.to(x.device, x.dtype) for g, x in zip(incoming, outputs, strict=True)], allow_unused=True
        )
        for outputs, arguments in (ours, theirs)
    ]
    return compare(*gradients, any_dtype=widened)


def compare(ours: Any, theirs: Any, any_dtype: bool = False) -> str:
    """``"equal"`` or ``"close"``; raises _Different, with torch's words, where they are neither.

    Args:
        any_dtype: rounds what is compared with to the dtype of ours.
    """
    first, second = pytree.tree_leaves(ours), pytree.tree_leaves(theirs)
    if len(first) != len(second):
        raise _Different(f"{len(first)} results instead of {len(second)}")
    results = [_compare_one(x, y, any_dtype) for x, y in zip(first, second, strict=True)]
    return CLOSE if CLOSE in results else EQUAL


def _compare_one(ours: Any, theirs: Any, any_dtype: bool) -> str:
    if not isinstance(theirs, torch.Tensor) or not isinstance(ours, torch.Tensor):
        return _compare_scalars(ours, theirs)
    ours, theirs = ours.detach().cpu(), theirs.detach().cpu()
    if any_dtype:
        theirs = theirs.to(ours.dtype)
    if ours.dtype == theirs.dtype and ours.shape == theirs.shape and _same_bits(ours, theirs):
        return EQUAL
    try:
        torch.testing.assert_close(ours, theirs, equal_nan=True)
    except AssertionError as error:
        raise _Different(" ".join(str(error).split())) from error
    return CLOSE


def _compare_scalars(ours: Any, theirs: Any) -> str:
    if ours is theirs or ours == theirs or (ours != ours and theirs != theirs):
        return EQUAL
    if str(ours).replace(DEVICE, "cpu") == str(theirs):  # for instance a device
        return EQUAL
    raise _Different(f"{ours!r} instead of {theirs!r}")


def _same_bits(x: torch.Tensor, y: torch.Tensor) -> bool:
    if x.layout != torch.strided or y.layout != torch.strided:
        return x.layout == y.layout and _same_bits(x.to_dense(), y.to_dense())
    if x.is_complex():
        return _same_bits(torch.view_as_real(x.resolve_conj()), torch.view_as_real(y.resolve_conj()))
    if torch.equal(x, y):
        return True
    return x.is_floating_point() and bool(((x == y) | (x.isnan() & y.isnan())).all())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
