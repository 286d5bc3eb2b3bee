"""Runs one case on the simulated device and on the CPU, and says what came of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch.testing._comparison import default_tolerances
from torch.utils import _pytree as pytree

from tests.fidelity.database import GRADIENT, Case, Database
from tests.fidelity.expectations import tolerance

EQUAL, CLOSE, DRAWS, DIFFERS, REFUSED, CRASHED = "equal", "close", "draws", "differs", "refused", "crashed"
PASSED = (EQUAL, CLOSE)
DEVICE = "mps:0"
SEED = 20

RANDOM = {
    "bernoulli",
    "cauchy",
    "exponential",
    "geometric",
    "log_normal",
    "multinomial",
    "nn.functional.alpha_dropout",
    "nn.functional.dropout",
    "nn.functional.dropout2d",
    "nn.functional.dropout3d",
    "nn.functional.feature_alpha_dropout",
    "normal",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "uniform",
}
"""Operators of whose results torch's test compares shape and dtype, not the numbers: a Mac draws others."""


@dataclass(frozen=True)
class Observation:
    """What came of a case.

    Attributes:
        outcome: ``"equal"`` (to the last bit), ``"close"`` (within `torch.testing.assert_close`'s tolerances for the
            dtype, or what torch allows its test of the case), ``"draws"`` (equal with the same random numbers, but not
            with others, and a Mac draws others), ``"differs"``, ``"refused"`` (an exception) or ``"crashed"`` (the
            process ended, or took too long).
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
    allowed = tolerance(database, case)
    count, outcome = 0, EQUAL
    try:
        for sample in islice(_samples(op, dtype, case.direction), limit):
            count += 1
            dice = _Dice()
            seen = _compare_sample(op, sample, case.direction, dice, allowed)
            if dice.thrown and not _stands_other_numbers(op, dtype, case.direction, count, allowed):
                return Observation(DRAWS, count)
            outcome = CLOSE if seen == CLOSE else outcome
    except _Different as difference:
        return Observation(DIFFERS, count, str(difference))
    except Exception as error:  # noqa: BLE001 - whatever is raised is the observation
        return Observation(REFUSED, max(count, 1), f"{type(error).__name__}: {_first_line(error)}")
    return Observation(outcome, count)


class _Dice:
    """Calls operators with seeded generators, and notices whether they draw numbers or set a seed themselves.

    Attributes:
        offset: added to every seed.
        thrown: whether random numbers mattered.
    """

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.thrown = False
        self._seed = torch.manual_seed

    def call(self, op: Any, sample: Any) -> Any:
        self._seed(SEED + self.offset)
        before = torch.get_rng_state()
        torch.manual_seed = self._noticed
        try:
            return op(sample.input, *sample.args, **sample.kwargs)
        finally:
            torch.manual_seed = self._seed
            self.thrown = self.thrown or not torch.equal(before, torch.get_rng_state())

    def _noticed(self, seed: int) -> torch.Generator:
        self.thrown = True
        return self._seed(seed + self.offset)


def _stands_other_numbers(
    op: Any, dtype: torch.dtype, direction: str, number: int, allowed: tuple[float, float]
) -> bool:
    """Whether the test would still pass if the CPU drew other numbers than the device."""
    sample = next(islice(_samples(op, dtype, direction), number - 1, None))
    try:
        _compare_sample(op, sample, direction, _Dice(offset=1), allowed)
    except _Different:
        return False
    return True


def _samples(op: Any, dtype: torch.dtype, direction: str) -> Iterator[Any]:
    floating = dtype.is_floating_point or dtype.is_complex
    more = (
        {} if direction == GRADIENT else {"include_conjugated_inputs": dtype.is_complex and op.test_conjugated_samples}
    )
    yield from op.sample_inputs(DEVICE, dtype, requires_grad=floating, set_seed=True, **more)


def _compare_sample(op: Any, sample: Any, direction: str, dice: _Dice, allowed: tuple[float, float]) -> str:
    """Compares the device's results with those of the CPU, to which `dice` belongs."""
    reference = sample.transform(_to_cpu)
    if reference.kwargs.get("device") == DEVICE:
        reference.kwargs["device"] = "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = _Dice().call(op, sample)
        theirs, reference, widened = _call_reference(op, reference, dice)
        if op.name == "unique" and not reference.kwargs.get("sorted", True):
            return EQUAL
        if dice.offset and op.name in RANDOM:
            forward = _compare_metadata(ours, theirs.to(ours.dtype) if widened else theirs)
        else:
            forward = compare(ours, theirs, allowed, widened)
        if direction != GRADIENT:
            return forward
        backward = _compare_gradients(
            _differentiable(ours, sample), _differentiable(theirs, reference), allowed, widened
        )
    return CLOSE if CLOSE in (forward, backward) else EQUAL


def _call_reference(op: Any, sample: Any, dice: _Dice) -> tuple[Any, Any, bool]:
    """The CPU's result, the sample that gave it, and whether it is in float32 for lack of a kernel.

    The CPU has fewer operators in half precision and bool. torch's own test computes the reference in float32 then, and
    rounds it.
    """
    try:
        return dice.call(op, sample), sample, False
    except NotImplementedError:
        widened = sample.transform(partial(_to_float32, sample.input.dtype))
        return dice.call(op, widened), widened, True


def _compare_metadata(ours: torch.Tensor, theirs: torch.Tensor) -> str:
    if (ours.shape, ours.dtype, ours.layout) != (theirs.shape, theirs.dtype, theirs.layout):
        raise _Different("another shape, dtype or layout")
    return EQUAL


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
    allowed: tuple[float, float],
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
            outputs,
            arguments,
            [g.to(x.device, x.dtype) for g, x in zip(incoming, outputs, strict=True)],
            allow_unused=True,
        )
        for outputs, arguments in (ours, theirs)
    ]
    return compare(*gradients, allowed, widened)


def compare(ours: Any, theirs: Any, allowed: tuple[float, float] = (0.0, 0.0), any_dtype: bool = False) -> str:
    """``"equal"`` or ``"close"``; raises _Different, with torch's words, where they are neither.

    Args:
        allowed: absolute and relative difference; torch's defaults for the dtype where they are larger.
        any_dtype: rounds what is compared with to the dtype of ours.
    """
    first, second = pytree.tree_leaves(ours), pytree.tree_leaves(theirs)
    if len(first) != len(second):
        raise _Different(f"{len(first)} results instead of {len(second)}")
    results = [_compare_one(x, y, allowed, any_dtype) for x, y in zip(first, second, strict=True)]
    return CLOSE if CLOSE in results else EQUAL


def _compare_one(ours: Any, theirs: Any, allowed: tuple[float, float], any_dtype: bool) -> str:
    if not isinstance(theirs, torch.Tensor) or not isinstance(ours, torch.Tensor):
        return _compare_scalars(ours, theirs)
    ours, theirs = ours.detach().cpu(), theirs.detach().cpu()
    if any_dtype:
        theirs = theirs.to(ours.dtype)
    if ours.dtype == theirs.dtype and ours.shape == theirs.shape and _same_bits(ours, theirs):
        return EQUAL
    try:
        rtol, atol = default_tolerances(ours, theirs)
        torch.testing.assert_close(ours, theirs, atol=max(atol, allowed[0]), rtol=max(rtol, allowed[1]), equal_nan=True)
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
