"""Compares results of the simulated device with the CPU's, and says what came of a case."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.testing._comparison import default_tolerances
from torch.utils import _pytree as pytree

EQUAL, CLOSE, DRAWS, DIFFERS, REFUSED, CRASHED = "equal", "close", "draws", "differs", "refused", "crashed"
PASSED = (EQUAL, CLOSE)
DEVICE = "mps:0"
SEED = 20
ABSENT = "is not currently implemented for the MPS device"
"""What a Mac says of an operator without a kernel."""


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


class Different(Exception):
    """The two results are not close."""


def observe(outcomes: Iterator[str], limit: int | None = None) -> Observation:
    """Lets a case run until one of its sample inputs is refused, differs or draws other numbers.

    Args:
        outcomes: of the sample inputs, as `tests.fidelity.corpora.Corpus.outcomes` yields them.
        limit: the most sample inputs to run; None for all.
    """
    count, outcome = 0, EQUAL
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for seen in islice(outcomes, limit):
                count += 1
                if seen == DRAWS:
                    return Observation(DRAWS, count)
                outcome = CLOSE if seen == CLOSE else outcome
    except Different as difference:
        return Observation(DIFFERS, count + 1, str(difference))
    except Exception as error:  # noqa: BLE001 - whatever is raised is the observation
        return Observation(REFUSED, count + 1, f"{type(error).__name__}: {_first_line(error)}")
    return Observation(outcome, count)


class Dice:
    """Calls functions with seeded generators, and notices whether they draw numbers or set a seed themselves.

    Attributes:
        offset: added to every seed.
        thrown: whether random numbers mattered.
    """

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.thrown = False
        self._seed = torch.manual_seed

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._seed(SEED + self.offset)
        before = torch.get_rng_state()
        torch.manual_seed = self._noticed
        try:
            return function(*args, **kwargs)
        finally:
            torch.manual_seed = self._seed
            self.thrown = self.thrown or not torch.equal(before, torch.get_rng_state())

    def _noticed(self, seed: int) -> torch.Generator:
        self.thrown = True
        return self._seed(seed + self.offset)


def raised(wrong: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """``"equal"``; raises `Different` where a call does not raise what one of torch's error inputs says.

    Args:
        wrong: the error input: the exception's class and a pattern of its words.
        function: what is called with the rest, up to the next wait for the GPU.
    """
    expected = f"{getattr(wrong.error_type, '__name__', wrong.error_type)}: {wrong.error_regex}"
    try:
        function(*args, **kwargs)
        torch.mps.synchronize()
    except Exception as error:
        if isinstance(error, NotImplementedError) and ABSENT in str(error):
            raise
        if not isinstance(error, wrong.error_type) or not re.search(wrong.error_regex, str(error)):
            raise Different(f"{type(error).__name__}: {error}, instead of {expected}") from error
        return EQUAL
    raise Different(f"nothing raised, instead of {expected}")


def to_cpu(x: Any) -> Any:
    """A tensor's copy on the CPU, which needs a gradient if it does; anything else as it is."""
    if not isinstance(x, torch.Tensor):
        return x
    copied = x.detach().conj().cpu().conj() if x.is_conj() else x.detach().cpu()
    return copied.requires_grad_(x.requires_grad)


def compare(
    ours: Any,
    theirs: Any,
    allowed: tuple[float, float] = (0.0, 0.0),
    any_dtype: bool = False,
    of_largest: float = 0.0,
) -> str:
    """``"equal"`` or ``"close"``; raises `Different`, with torch's words, where they are neither.

    Args:
        allowed: absolute and relative difference; torch's defaults for the dtype where they are larger.
        any_dtype: rounds what is compared with to the dtype of ours.
        of_largest: the part of a tensor's largest number by which each of its numbers may differ.
    """
    first, second = pytree.tree_leaves(ours), pytree.tree_leaves(theirs)
    if len(first) != len(second):
        raise Different(f"{len(first)} results instead of {len(second)}")
    results = [_compare_one(x, y, allowed, any_dtype, of_largest) for x, y in zip(first, second, strict=True)]
    return CLOSE if CLOSE in results else EQUAL


def _compare_one(ours: Any, theirs: Any, allowed: tuple[float, float], any_dtype: bool, of_largest: float) -> str:
    if not isinstance(theirs, torch.Tensor) or not isinstance(ours, torch.Tensor):
        return _compare_scalars(ours, theirs)
    ours, theirs = ours.detach().cpu(), theirs.detach().cpu()
    if any_dtype:
        theirs = theirs.to(ours.dtype)
    if ours.dtype == theirs.dtype and ours.shape == theirs.shape and _same_bits(ours, theirs):
        return EQUAL
    try:
        rtol, atol = default_tolerances(ours, theirs)
        if of_largest and theirs.numel():
            atol = max(atol, of_largest * float(theirs.abs().max()))
        torch.testing.assert_close(ours, theirs, atol=max(atol, allowed[0]), rtol=max(rtol, allowed[1]), equal_nan=True)
    except AssertionError as error:
        raise Different(" ".join(str(error).split())) from error
    return CLOSE


def _compare_scalars(ours: Any, theirs: Any) -> str:
    if ours is theirs or ours == theirs or (ours != ours and theirs != theirs):
        return EQUAL
    if str(ours).replace(DEVICE, "cpu") == str(theirs):  # for instance a device
        return EQUAL
    raise Different(f"{ours!r} instead of {theirs!r}")


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
