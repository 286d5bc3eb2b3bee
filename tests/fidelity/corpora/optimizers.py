"""``optimizers``: torch.optim's optimizers against the CPU, several steps, as PyTorch's test/test_optim.py runs them.

- ``forloop``: each of the entry's configurations, parameters and state after each step;
- ``foreach``, ``fused``: likewise, and as the loop over parameters;
- ``capturable``: refused, since mps is not among the devices of ``_get_capturable_supported_devices``;
- ``resumed``: an optimizer that has loaded another's state goes on as that one;
- ``error``: wrong arguments are refused with the entry's class and words. The entries give them for parameters on the
  CPU alone; they are moved.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch.utils import _pytree as pytree

from patcher.macs.mac import MacProfile
from tests.fidelity.cases import Case, dtype_name
from tests.fidelity.corpora import Corpus
from tests.fidelity.database import prepare
from tests.fidelity.expectations import FAILS, Expectation, applied, tolerance
from tests.fidelity.measure import CLOSE, DEVICE, EQUAL, compare, raised

FORLOOP, FOREACH, FUSED, CAPTURABLE, RESUMED, ERROR = "forloop", "foreach", "fused", "capturable", "resumed", "error"
TESTS = {
    FORLOOP: "test_forloop_goes_right_direction",
    FOREACH: "test_foreach_matches_forloop",
    FUSED: "test_fused_matches_forloop",
    CAPTURABLE: "test_fused_matches_forloop",
    RESUMED: "test_state_dict_deterministic",
    ERROR: "test_errors",
}
"""Methods of TestOptimRenewed in PyTorch's test/test_optim.py, by whose decorators a test here goes."""

DTYPES = {FUSED: (torch.float32, torch.float16, torch.bfloat16)}
"""As in torch's tests; float32 where none are named."""
STEPS = 7
"""Only the seventh step of RAdam is of its other kind."""


class Optimizers(Corpus):
    """Each entry of ``optim_db``."""

    EVERY: ClassVar[int] = 5

    def __init__(self, mac: MacProfile) -> None:
        super().__init__(mac)
        prepare(mac.macos)
        from torch.testing._internal.common_optimizers import optim_db

        self._infos = {info.name: info for info in optim_db}

    def cases(self) -> list[Case]:
        return sorted(
            Case("optimizers", name, dtype_name(dtype), test)
            for name, info in self._infos.items()
            for test in _tests(info)
            for dtype in DTYPES.get(test, (torch.float32,))
        )

    def expectation(self, case: Case) -> Expectation:
        info, dtype = self._infos[case.name], getattr(torch, case.dtype)
        if case.test == CAPTURABLE:
            return Expectation(FAILS, "_get_capturable_supported_devices")
        if case.test == FUSED and "mps" not in info.supports_fused_on:
            return Expectation(FAILS, "supports_fused_on")
        return applied(self._decorators(case), optim_info=info, dtype=dtype)

    def outcomes(self, case: Case) -> Iterator[str]:
        info, dtype = self._infos[case.name], getattr(torch, case.dtype)
        if case.test == ERROR:
            yield from _refusals(info, dtype)
            return
        allowed = tolerance(self._decorators(case), dtype)
        # torch leaves foreach out on mps, whose configurations have a tensor as learning rate, which it is not for
        for given in info.optim_inputs_func(device="cpu" if case.test == FOREACH else DEVICE, dtype=dtype):
            kwargs = {**given.kwargs, **_flags(info, case.test)}
            run = _resumed if case.test == RESUMED else _compared
            yield run(info, dtype, kwargs, allowed)

    def _decorators(self, case: Case) -> list[Any]:
        dtype = getattr(torch, case.dtype)
        found: list[Any] = self._infos[case.name].get_decorators(
            "TestOptimRenewed", TESTS[case.test], "mps", dtype, {"dtype": dtype}
        )
        return found


class _Training:
    """Two layers with a frozen part, an empty gradient and a parameter without elements on the way."""

    def __init__(self, info: Any, device: str, dtype: torch.dtype, kwargs: dict[str, Any]) -> None:
        torch.manual_seed(1)  # as in torch's test
        layers = torch.nn.Linear(2, 3, bias=not _matrices(info)), torch.nn.Linear(3, 1, bias=not _matrices(info))
        self.model = torch.nn.Sequential(layers[0], torch.nn.Sigmoid(), layers[1], torch.nn.Sigmoid()).to(device, dtype)
        self.x = torch.linspace(0.1, 0.6, 6).reshape(3, 2).to(device, dtype)
        self.info = info
        self.optimizer = info.optim_cls(list(self.model.parameters()), **copy.deepcopy(kwargs))

    def step(self, number: int) -> Any:
        """Parameters and state after a step; at step 2 there are no gradients, at 3 and 4 a layer is frozen."""
        self.model[2].requires_grad_(number not in (3, 4))
        self.optimizer.zero_grad()
        if self.info.step_requires_closure:
            self.optimizer.step(self._loss)
        else:
            if number != 2:
                self._loss()
            self.optimizer.step()
        return list(self.model.parameters()), self.optimizer.state_dict()["state"]

    @torch.no_grad()
    def follow(self, other: _Training) -> None:
        """Takes on another's parameters and state, so that differences do not add up from step to step."""
        for mine, theirs in zip(self.model.parameters(), other.model.parameters(), strict=True):
            mine.copy_(theirs)
            for name, value in other.optimizer.state.get(theirs, {}).items():
                if isinstance(value, torch.Tensor):
                    self.optimizer.state[mine][name].copy_(value)

    def _loss(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.model(self.x).sum()
        loss.backward()
        if self.info.only_supports_sparse_grads:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.to_sparse()
        return loss


def _compared(info: Any, dtype: torch.dtype, kwargs: dict[str, Any], allowed: tuple[float, float]) -> str:
    """With the CPU and with the loop over parameters on the device, each step from the same state, as torch does."""
    loop = {**kwargs, **_flags(info, FORLOOP)}
    fused = kwargs.get("fused") and "cpu" in info.supports_fused_on
    ours = _Training(info, DEVICE, dtype, kwargs)
    others = [_Training(info, "cpu", dtype, kwargs if fused else loop), _Training(info, DEVICE, dtype, loop)]
    seen = set()
    for number in range(STEPS):
        found = copy.deepcopy(ours.step(number))
        for other in others:
            seen.add(compare(found, other.step(number), allowed))
            other.follow(ours)
    return CLOSE if CLOSE in seen else EQUAL


def _resumed(info: Any, dtype: torch.dtype, kwargs: dict[str, Any], allowed: tuple[float, float]) -> str:
    """With one that was never stopped."""
    first, second = _Training(info, DEVICE, dtype, kwargs), _Training(info, DEVICE, dtype, kwargs)
    for number in range(STEPS // 2):
        first.step(number)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    seen = {compare(second.step(number), first.step(number), allowed) for number in range(STEPS // 2, STEPS)}
    return CLOSE if CLOSE in seen else EQUAL


def _refusals(info: Any, dtype: torch.dtype) -> Iterator[str]:
    """Construction or a step must raise, or warn of, what the entry says."""
    for wrong in info.optim_error_inputs_func(device="cpu", dtype=dtype):
        given = wrong.optimizer_error_input
        parameters = pytree.tree_map_only(torch.Tensor, _moved, given.params)
        if parameters is None:
            parameters = [torch.nn.Parameter(torch.randn(2, 3, device=DEVICE, dtype=dtype))]
        with warnings.catch_warnings():
            if issubclass(wrong.error_type, Warning):
                warnings.simplefilter("error")
            if wrong.error_on.name == "CONSTRUCTION_ERROR":
                yield raised(wrong, info.optim_cls, parameters, **given.kwargs)
            else:
                yield raised(wrong, info.optim_cls(parameters, **given.kwargs).step)


def _moved(x: torch.Tensor) -> torch.Tensor:
    """A parameter as one on the device; the same one for the same."""
    if not hasattr(x, "_moved"):
        x._moved = torch.nn.Parameter(x.detach().to(DEVICE))  # type: ignore[attr-defined]
        if x.grad is not None:
            x._moved.grad = x.grad.to(DEVICE)  # type: ignore[attr-defined]
    found: torch.Tensor = x._moved  # type: ignore[attr-defined]
    return found


def _matrices(info: Any) -> bool:
    """Whether the optimizer takes matrices alone."""
    return bool(info.name == "Muon")


def _tests(info: Any) -> list[str]:
    given = {
        FOREACH: "foreach" in info.supported_impls,
        FUSED: "fused" in info.supported_impls,
        CAPTURABLE: info.has_capturable_arg,
        ERROR: info.optim_error_inputs_func is not None,
    }
    return [FORLOOP, RESUMED, *(test for test, has in given.items() if has)]


def _flags(info: Any, test: str) -> dict[str, bool]:
    """The arguments that choose an implementation, those that the optimizer has."""
    flags = {flag: flag == test for flag in ("foreach", "fused") if flag in info.supported_impls}
    return {**flags, **({CAPTURABLE: True} if test == CAPTURABLE else {})}


CORPUS = Optimizers
