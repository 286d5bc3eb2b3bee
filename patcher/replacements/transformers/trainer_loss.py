"""PATCHER_STOP_AT_NAN=1: training stops at the first loss that is NaN or infinite and names the module it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch

from patcher import environment
from patcher.engine.ledger import original
from patcher.errors import LossNotFinite, compose


@dataclass
class Forward:
    """The modules that ran for one loss, in the order in which they ended, and whether what they saw was finite."""

    trainer: Any
    calls: list[tuple[torch.nn.Module, torch.Tensor | None, torch.Tensor | None]] = field(default_factory=list)

    def see(self, module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """A forward hook. Adds two flags on the device; nothing waits for the device."""
        self.calls.append((module, finite((args, kwargs)), finite(output)))

    def culprit(self) -> torch.nn.Module | None:
        """The first module that made something infinite or NaN out of finite inputs."""
        for module, before, after in self.calls:
            if after is not None and not bool(after) and (before is None or bool(before)):
                return module
        return None


_FORWARDS: WeakKeyDictionary[Any, Forward] = WeakKeyDictionary()
"""The last forward of each accelerator, until its backward."""


def compute_loss_context_manager(self: Any) -> Any:
    """As transformers', and where it is asked for every module's output is watched while the loss is computed."""
    stack = original("transformers.trainer:Trainer.compute_loss_context_manager")(self)
    if torch.is_grad_enabled() and environment.stop_at_nan():
        stack.enter_context(_watching(self))
    return stack


def backward(self: Any, loss: Any, **kwargs: Any) -> None:
    """Computes the gradients of a loss.

    Raises:
        LossNotFinite: it is NaN or infinite, and PATCHER_STOP_AT_NAN=1. No gradient was computed from it.
    """
    forward = _FORWARDS.pop(self, None)
    if forward is not None and not bool(torch.isfinite(loss.detach()).all()):
        raise _error(forward, loss)
    original("accelerate.accelerator:Accelerator.backward")(self, loss, **kwargs)


@contextmanager
def _watching(trainer: Any) -> Iterator[None]:
    forward = Forward(trainer)
    _FORWARDS[trainer.accelerator] = forward
    hook: Any = torch.nn.modules.module.register_module_forward_hook
    handle = hook(forward.see, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def finite(values: Any) -> torch.Tensor | None:
    """A flag on the device: whether every floating-point tensor within ``values`` is finite. None without tensors."""
    flags = [torch.isfinite(tensor.detach()).all() for tensor in _tensors(values)]
    if not flags:
        return None
    return flags[0] if len(flags) == 1 else torch.stack([flag.to(flags[0].device) for flag in flags]).all()


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        if values.is_floating_point() and values.numel():
            yield values
    elif isinstance(values, Mapping):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)


def _error(forward: Forward, loss: torch.Tensor) -> LossNotFinite:
    step = forward.trainer.state.global_step
    module = _innermost(forward)
    return LossNotFinite(
        compose(
            f"the loss of step {step + 1} is {loss.detach().float().mean().item()}",
            target=_name(forward.trainer, module),
            found=_cause(module, step),
            left=f"the weights are those after step {step}; no gradient was computed from this loss",
            run="look at this step's rows (is every label -100?); try a lower learning rate, max_grad_norm, or bf16 or "
            "fp32 instead of fp16",
        )
    )


def _innermost(forward: Forward) -> torch.nn.Module | None:
    """The culprit, or the module within it whose own weight is not finite: a fused function may have bypassed it.

    A module that ran, with a finite output, is not to blame: its weight may be a mask.
    """
    module = forward.culprit()
    sound = {id(part) for part, _, after in forward.calls if after is not None and bool(after)}
    for part in module.modules() if module is not None else ():
        if id(part) not in sound and _broken(part):
            return part
    return module


def _broken(module: torch.nn.Module) -> list[str]:
    """The names of its own weights that are not finite; one that is stored in 4 bit has no such values."""
    flags = {name: finite(weight) for name, weight in module.named_parameters(recurse=False)}
    return [name for name, flag in flags.items() if flag is not None and not bool(flag)]


def _name(trainer: Any, module: torch.nn.Module | None) -> str:
    if module is None:
        return "the loss itself"
    for whole in (trainer.model, getattr(trainer, "ref_model", None)):
        for name, part in whole.named_modules() if whole is not None else ():
            if part is module:
                return f"{name or 'the model'} ({type(module).__name__})"
    return type(module).__name__


def _cause(module: torch.nn.Module | None, step: int) -> str:
    if module is None:
        return "every module's output is finite: the loss was computed from no label, or overflowed"
    broken = _broken(module)
    if broken:
        return f"its {', '.join(broken)} is not finite" + (f": the update of step {step} wrote it" if step else "")
    return "its output is NaN or infinite, and its inputs are finite"
