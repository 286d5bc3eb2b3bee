"""``compiled``: what ``torch.compile`` makes of torch's operators for mps, forward and gradient, against eager CPU.

PyTorch has no such test for Macs. This is modelled on its test for CUDA, test/inductor/test_torchinductor_opinfo.py:
where a result is not that of eager float32, float64 decides; of operators that draw random numbers, or return memory as
it was, only shapes and dtypes are compared. What torch cannot compile for a Mac, or compiles into other numbers there
too, is in `compiled.toml`, each kind with its evidence; such a case passes if it fails in the words that are given
there. Every other case passes if it gives the CPU's numbers.

Inductor is that of the installed torch, so that there are cases only for a simulated Mac with the same torch.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch
import torch._dynamo
import torch._inductor.config
from torch.utils import _pytree as pytree

from patcher.macs.mac import MacProfile, release_of
from tests.fidelity.cases import Case
from tests.fidelity.corpora import Corpus
from tests.fidelity.database import FORWARD, GRADIENT, Database
from tests.fidelity.expectations import PASSES, Expectation, tolerance
from tests.fidelity.measure import DEVICE, EQUAL, SEED, Dice, Different, compare
from tests.fidelity.releases import installed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FAILURES = Path(__file__).with_name("compiled.toml")
DTYPE = torch.float32
SAMPLES = 4
"""The most sample inputs of a case. One function has them all: nearly all of the time goes into compiling it."""
UNDEFINED = ("empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided")
"""Operators that return memory as it was."""


@dataclass(frozen=True)
class Failure:
    """What torch cannot compile for a Mac, or compiles into other numbers.

    Attributes:
        kind: why, in a few words.
        evidence: where that is said.
        words: in the error with its traceback, or in the difference.
    """

    kind: str
    evidence: str
    words: str


def failures(path: Path = FAILURES) -> dict[tuple[str, str], Failure]:
    """What fails on a Mac, by operator and test.

    Raises:
        ValueError: an operator that is given twice.
    """
    found: dict[tuple[str, str], Failure] = {}
    for entry in tomllib.loads(path.read_text())["failure"]:
        for line in entry["cases"]:
            name, *tests = line.split()
            for test in tests:
                if (name, test) in found:
                    raise ValueError(f"{name} {test} is listed twice")
                found[name, test] = Failure(entry["kind"], entry["evidence"], entry["words"].format(name=name))
    return found


class Compiled(Corpus):
    """Each operator in float32: with its gradient where it has one, forward alone where it has none."""

    EVERY: ClassVar[int] = 85
    LISTED: ClassVar[bool] = False

    def __init__(self, mac: MacProfile) -> None:
        super().__init__(mac)
        self._database = Database(mac.macos)
        self._failures = failures()
        _prepare_compiler()

    def cases(self) -> list[Case]:
        if release_of(self.mac.torch) != installed():
            return []
        found = []
        for name, op in self._database.ops.items():
            if DTYPE in op.supported_dtypes("mps"):
                differentiable = op.supports_autograd and DTYPE in op.supported_backward_dtypes("mps")
                found.append(Case("compiled", name, "float32", GRADIENT if differentiable else FORWARD))
        return sorted(found)

    def expectation(self, case: Case) -> Expectation:
        failure = self._failures.get((case.name, case.test))
        return Expectation(PASSES, failure.kind if failure else "")

    def outcomes(self, case: Case) -> Iterator[str]:
        failure = self._failures.get((case.name, case.test))
        if failure is None:
            yield from self._compared(case)
            return
        try:
            list(self._compared(case))
        except Exception as error:
            if failure.words not in "".join(traceback.format_exception(error)):
                raise
            yield EQUAL
        else:
            raise Different(f"is compiled, and fails on a Mac: {failure.kind}")

    def _compared(self, case: Case) -> Iterator[str]:
        op = self._database.ops[case.name]
        allowed = tolerance(self._database.decorators(case.name, case.dtype, case.test), DTYPE)
        batch = _batch(op, case.test)
        exact, reference, dice = _copied(batch, torch.float64), _copied(batch, DTYPE), Dice()
        ours = _compiled(_function(op), batch)
        theirs = dice.call(_results, _function(op), reference)
        if dice.thrown or op.name in UNDEFINED:
            yield compare(pytree.tree_map(_kind, ours), pytree.tree_map(_kind, theirs))
            return
        try:
            yield compare(ours, theirs, allowed)
        except Different:
            yield compare(ours, _results(_function(op), exact), allowed, any_dtype=True)


def _batch(op: Any, test: str) -> list[tuple[Any, ...]]:
    """Arguments of the operator, from some of its sample inputs, spread over all of them."""
    samples = list(op.sample_inputs(DEVICE, DTYPE, requires_grad=test == GRADIENT, set_seed=True))
    chosen = samples[:: -(-len(samples) // SAMPLES) or 1]
    return [(sample.input, sample.args, sample.kwargs) for sample in chosen]


def _copied(batch: list[tuple[Any, ...]], dtype: torch.dtype) -> list[tuple[Any, ...]]:
    """The same arguments for the CPU, floating point in a dtype; a tensor that occurs twice stays one."""
    copies: dict[int, Any] = {}

    def copy(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            if id(x) not in copies:
                copies[id(x)] = _on_cpu(x, dtype if x.dtype == DTYPE else x.dtype)
            return copies[id(x)]
        return "cpu" if x in (DEVICE, torch.device(DEVICE)) else x

    return pytree.tree_map(copy, batch)  # type: ignore[no-any-return]


def _on_cpu(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy, with all of the storage that it is a view of."""
    whole = torch.empty(0, dtype=x.dtype, device=x.device).set_(x.untyped_storage()).cpu().to(dtype)
    return whole.as_strided(x.shape, x.stride(), x.storage_offset()).requires_grad_(x.requires_grad)


def _function(op: Any) -> Any:
    """One function that calls the operator once for each sample input."""

    def call(batch: list[tuple[Any, ...]]) -> list[Any]:
        return [op.op(first, *args, **kwargs) for first, args, kwargs in batch]

    return call


def _compiled(function: Any, batch: list[tuple[Any, ...]]) -> Any:
    """Results of a function that is compiled anew; Inductor keeps its files in a folder that is removed."""
    torch._dynamo.reset()
    torch.manual_seed(SEED)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=folder),
    ):
        return _results(torch.compile(function, dynamic=False), batch)


def _results(function: Any, batch: list[tuple[Any, ...]]) -> Any:
    """What the function gives, and the gradients of the arguments that want one, given random ones of the results."""
    values = function(batch)
    outputs, arguments = _differentiable(values), _differentiable(batch)
    if not outputs or not arguments:
        return values, ()
    generator = torch.Generator().manual_seed(SEED)
    incoming = [torch.rand(x.shape, generator=generator).to(x.device, x.dtype) for x in outputs]
    return values, torch.autograd.grad(outputs, arguments, incoming, allow_unused=True)


def _differentiable(values: Any) -> list[torch.Tensor]:
    return [x for x in pytree.tree_leaves(values) if isinstance(x, torch.Tensor) and x.requires_grad]


def _kind(x: Any) -> Any:
    return (x.shape, x.dtype, x.layout) if isinstance(x, torch.Tensor) else type(x)


def _prepare_compiler() -> None:
    """No caches, no other processes, no log, and no `torch.manual_seed` around operators, where Dynamo would stop."""
    from torch.testing._internal import common_methods_invocations

    torch._inductor.config.force_disable_caches = True
    torch._inductor.config.compile_threads = 1
    logging.disable(logging.CRITICAL)
    common_methods_invocations.wrapper_set_seed = _without_seed  # type: ignore[attr-defined]


def _without_seed(op: Any, *args: Any, **kwargs: Any) -> Any:
    return op(*args, **kwargs)


CORPUS = Compiled
