"""``operators``: forward and gradient of torch's operators against the CPU (PyTorch's test/test_mps.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any, ClassVar

import torch
from torch.utils import _pytree as pytree

from patcher.macs.mac import MacProfile
from tests.fidelity.cases import Case
from tests.fidelity.corpora import Corpus
from tests.fidelity.database import FORWARD, GRADIENT, GRADIENT_DTYPES, Database
from tests.fidelity.expectations import PASSES, Expectation, applied, tolerance
from tests.fidelity.measure import CLOSE, DEVICE, DRAWS, EQUAL, SEED, Dice, Different, compare, to_cpu

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

LOW_PRECISION = {"log_softmax", "masked.log_softmax"}
"""Operators for which torch's test allows `OF_HALF_PRECISION` where the inputs are in half precision.

test/test_mps.py has a longer list, FP16_LOW_PRECISION_LIST of TestConsistency: here the others need no more than usual.
It is what tells log_softmax of a bfloat16 tensor, which passes on a Mac, from float32 into bfloat16, which fails.
"""

OF_HALF_PRECISION = {"float16": (2e-2, 1e-2), "bfloat16": (5e-2, 5e-2)}
"""Absolute and relative: `_compute_tolerances` there."""


class Operators(Corpus):
    """Each operator in each dtype that its entry names for mps; gradients in float32 and float16."""

    EVERY: ClassVar[int] = 15

    def __init__(self, mac: MacProfile) -> None:
        super().__init__(mac)
        self._database = Database(mac.macos)

    def cases(self) -> list[Case]:
        found = []
        for name in self._database.ops:
            for dtype in self._database.dtypes(name):
                found.append(Case("operators", name, dtype, FORWARD))
                if getattr(torch, dtype) in GRADIENT_DTYPES:
                    found.append(Case("operators", name, dtype, GRADIENT))
        return sorted(found)

    def expectation(self, case: Case) -> Expectation:
        op = self._database.ops[case.name]
        found = applied(self._decorators(case), dtype=getattr(torch, case.dtype), op=op)
        if found.verdict == PASSES:
            return found
        return Expectation(found.verdict, self._database.list_naming(case.name, case.dtype, case.test) or found.source)

    def outcomes(self, case: Case) -> Iterator[str]:
        op, dtype = self._database.ops[case.name], getattr(torch, case.dtype)
        allowed = self._allowed(case)
        for number, sample in enumerate(_samples(op, dtype, case.test)):
            dice = Dice()
            seen = _compare_sample(op, sample, case.test, dice, allowed)
            if dice.thrown and not _stands_other_numbers(op, dtype, case.test, number, allowed):
                seen = DRAWS
            yield seen

    def outcomes_with_other_numbers(self, case: Case) -> Iterator[str]:
        """As `outcomes`, but the CPU draws other random numbers than the device, as beside a real Mac."""
        op, dtype = self._database.ops[case.name], getattr(torch, case.dtype)
        allowed = self._allowed(case)
        for sample in _samples(op, dtype, case.test):
            yield _compare_sample(op, sample, case.test, Dice(offset=1), allowed)

    def _allowed(self, case: Case) -> tuple[float, float]:
        if self._database.ops[case.name].name in LOW_PRECISION and case.dtype in OF_HALF_PRECISION:
            return OF_HALF_PRECISION[case.dtype]
        return self.allowed(case, tolerance(self._decorators(case), getattr(torch, case.dtype)))

    def _decorators(self, case: Case) -> list[Any]:
        return self._database.decorators(case.name, case.dtype, case.test)


def _stands_other_numbers(
    op: Any, dtype: torch.dtype, direction: str, number: int, allowed: tuple[float, float]
) -> bool:
    """Whether the test would still pass if the CPU drew other numbers than the device."""
    sample = next(islice(_samples(op, dtype, direction), number, None))
    try:
        _compare_sample(op, sample, direction, Dice(offset=1), allowed)
    except Different:
        return False
    return True


def _samples(op: Any, dtype: torch.dtype, direction: str) -> Iterator[Any]:
    floating = dtype.is_floating_point or dtype.is_complex
    more = (
        {} if direction == GRADIENT else {"include_conjugated_inputs": dtype.is_complex and op.test_conjugated_samples}
    )
    yield from op.sample_inputs(DEVICE, dtype, requires_grad=floating, set_seed=True, **more)


def _compare_sample(op: Any, sample: Any, direction: str, dice: Dice, allowed: tuple[float, float]) -> str:
    """Compares the device's results with those of the CPU, to which `dice` belongs."""
    reference = sample.transform(to_cpu)
    if reference.kwargs.get("device") == DEVICE:
        reference.kwargs["device"] = "cpu"
    ours = Dice().call(op, sample.input, *sample.args, **sample.kwargs)
    theirs, reference, widened = _call_reference(op, reference, dice)
    if op.name == "unique" and not reference.kwargs.get("sorted", True):
        return EQUAL
    if dice.offset and op.name in RANDOM:
        forward = _compare_metadata(ours, theirs.to(ours.dtype) if widened else theirs)
    else:
        forward = compare(ours, theirs, allowed, widened)
    if direction != GRADIENT:
        return forward
    backward = _compare_gradients(_differentiable(ours, sample), _differentiable(theirs, reference), allowed, widened)
    return CLOSE if CLOSE in (forward, backward) else EQUAL


def _call_reference(op: Any, sample: Any, dice: Dice) -> tuple[Any, Any, bool]:
    """The CPU's result, the sample that gave it, and whether it is in float32 for lack of a kernel.

    The CPU has fewer operators in half precision and bool, as its entry tells. torch's own test computes the reference
    in float32 then, and rounds it.
    """
    try:
        return dice.call(op, sample.input, *sample.args, **sample.kwargs), sample, False
    except RuntimeError as error:
        known = getattr(sample.input, "dtype", None) in op.supported_dtypes("cpu")
        if known and not isinstance(error, NotImplementedError):
            raise
        widened = sample.transform(partial(_to_float32, sample.input.dtype))
        return dice.call(op, widened.input, *widened.args, **widened.kwargs), widened, True


def _compare_metadata(ours: torch.Tensor, theirs: torch.Tensor) -> str:
    if (ours.shape, ours.dtype, ours.layout) != (theirs.shape, theirs.dtype, theirs.layout):
        raise Different("another shape, dtype or layout")
    return EQUAL


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
        raise Different("another number of differentiable results or arguments")
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


CORPUS = Operators
