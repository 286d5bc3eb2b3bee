"""``errors``: inputs that an operator refuses, with the exception's class and words (PyTorch's test/test_mps.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from patcher.macs.mac import MacProfile
from tests.fidelity.cases import Case
from tests.fidelity.corpora import Corpus
from tests.fidelity.database import ERRORS, Database
from tests.fidelity.expectations import FAILS, Expectation, applied
from tests.fidelity.measure import DEVICE, raised


class Errors(Corpus):
    """The error inputs of each operator that has some."""

    EVERY: ClassVar[int] = 10

    def __init__(self, mac: MacProfile) -> None:
        super().__init__(mac)
        self._database = Database(mac.macos)

    def cases(self) -> list[Case]:
        ops = self._database.ops
        return [Case("errors", name, "-", "error") for name in sorted(ops) if ops[name].error_inputs_func is not None]

    def expectation(self, case: Case) -> Expectation:
        decorators = self._database.decorators(case.name, None, ERRORS)
        found = applied(decorators, op=self._database.ops[case.name])
        return Expectation(FAILS, "XFAILLIST") if found.verdict == FAILS else found

    def outcomes(self, case: Case) -> Iterator[str]:
        op = self._database.ops[case.name]
        for wrong in op.error_inputs(DEVICE, set_seed=False):
            sample = wrong.sample_input
            try:
                yield raised(wrong, op, sample.input, *_arguments(op, sample), **sample.kwargs)
            except NotImplementedError:  # torch's test ends here without a verdict: the other corpora look at kernels
                return


def _arguments(op: Any, sample: Any) -> list[Any]:
    """As in torch's test, the indices of tensor_split are on the CPU."""
    first, *others = sample.args or (None,)
    if op.name == "tensor_split" and isinstance(first, torch.Tensor):
        return [first.cpu(), *others]
    return list(sample.args)


CORPUS = Errors
