"""The cases: each entry of torch's three databases, with each device and dtype that it names.

Source: torch 2.13.0, ``torch/testing/_internal``: ``common_methods_invocations.py`` (op_db), ``common_modules.py``
(module_db), ``common_optimizers.py`` (optim_db), used as PyTorch's ``test_ops.py``, ``test_modules.py`` and
``test_optim.py`` use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils import _pytree as pytree

OPERATOR, MODULE, OPTIMIZER = "operator", "module", "optimizer"
DEVICES = ("cpu", "mps")
STEPS = 3
SEED = 20


@dataclass(frozen=True, order=True)
class Case:
    """One entry on one device in one dtype.

    Attributes:
        kind: ``"operator"``, ``"module"`` or ``"optimizer"``.
        name: as in torch's database, e.g. ``"div.floor_rounding"`` or ``"nn.Linear"``.
        device: ``"cpu"`` or ``"mps"``.
        dtype: e.g. ``"float16"``.
    """

    kind: str
    name: str
    device: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.device} {self.dtype}"


class Databases:
    """torch's three databases."""

    def __init__(self) -> None:
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db
        from torch.testing._internal.common_optimizers import optim_db

        self._entries: dict[tuple[str, str], Any] = {
            **{(OPERATOR, op.full_name): op for op in op_db},
            **{(MODULE, module.name): module for module in module_db},
            **{(OPTIMIZER, optimizer.name): optimizer for optimizer in optim_db},
        }

    def cases(self) -> list[Case]:
        """Every case, sorted."""
        found = []
        for (kind, name), entry in self._entries.items():
            for device in DEVICES:
                dtypes = (torch.float32,) if kind == OPTIMIZER else entry.supported_dtypes(device)
                found += [Case(kind, name, device, str(dtype).removeprefix("torch.")) for dtype in dtypes]
        return sorted(found)

    def results(self, case: Case, limit: int | None = None) -> Iterator[Any]:
        """What each input of a case gives: results and gradients, or state after some steps; raises what torch raises.

        Args:
            limit: the most inputs; None for all.
        """
        entry, dtype = self._entries[case.kind, case.name], getattr(torch, case.dtype)
        run = {OPERATOR: _operator, MODULE: _module, OPTIMIZER: _optimizer}[case.kind]
        return islice(run(entry, case.device, dtype), limit)


def _operator(op: Any, device: str, dtype: torch.dtype) -> Iterator[Any]:
    differentiable = dtype in op.supported_backward_dtypes(device)
    for sample in op.sample_inputs(device, dtype, requires_grad=differentiable, set_seed=True):
        torch.manual_seed(SEED)
        result = op(sample.input, *sample.args, **sample.kwargs)
        arguments = [sample.input, *sample.args, *sample.kwargs.values()]
        yield result, _gradients(result, arguments) if differentiable and op.supports_autograd else None


def _module(info: Any, device: str, dtype: torch.dtype) -> Iterator[Any]:
    for training in (True, False):
        torch.manual_seed(SEED)
        inputs = info.module_inputs_func(info, device=device, dtype=dtype, requires_grad=True, training=training)
        for each in inputs:
            torch.manual_seed(SEED)
            made, given = each.constructor_input, each.forward_input
            module = info.module_cls(*made.args, **made.kwargs).to(device).to(dtype)
            module.train(training)
            result = module(*given.args, **given.kwargs)
            yield result, _gradients(result, [*given.args, *given.kwargs.values(), *module.parameters()])


def _optimizer(info: Any, device: str, dtype: torch.dtype) -> Iterator[Any]:
    from torch.testing._internal.common_optimizers import _get_optim_inputs_including_global_cliquey_kwargs

    for each in _get_optim_inputs_including_global_cliquey_kwargs(device, dtype, info, skip=("differentiable",)):
        torch.manual_seed(SEED)
        parameters = [torch.nn.Parameter(torch.randn(shape, device=device, dtype=dtype)) for shape in ((4, 3), (4,))]
        x = torch.randn(5, 3, device=device, dtype=dtype)
        optimizer = info.optim_cls(parameters, **each.kwargs)

        def closure(optimizer: Any = optimizer, parameters: Any = parameters, x: torch.Tensor = x) -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.nn.functional.linear(x, *parameters).square().mean()
            loss.backward()
            if info.only_supports_sparse_grads:
                for parameter in parameters:
                    parameter.grad = parameter.grad.to_sparse()
            return loss

        losses = [optimizer.step(closure) for _ in range(STEPS)]
        yield losses, parameters, optimizer.state_dict()


def _gradients(result: Any, arguments: list[Any]) -> Any:
    outputs = [x for x in pytree.tree_leaves(result) if isinstance(x, torch.Tensor) and x.requires_grad]
    inputs = [x for x in pytree.tree_leaves(arguments) if isinstance(x, torch.Tensor) and x.requires_grad]
    if not outputs or not inputs:
        return None
    incoming = [torch.ones_like(x) for x in outputs]
    return torch.autograd.grad(outputs, inputs, incoming, allow_unused=True)
