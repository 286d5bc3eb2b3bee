"""Torch's own of what the catalogue replaces, beside what a script finds."""

from __future__ import annotations

import pkgutil
import types
from collections.abc import Callable
from typing import Any

from patcher.engine.ledger import LEDGER
from patcher.engine.model import Patch, State

OWN: dict[str, Any] = {}
"""Torch's own of every method of Tensor and C function of torch that the catalogue replaces, by target."""

C_FUNCTIONS = (types.BuiltinFunctionType, types.MethodDescriptorType)


def own() -> dict[str, Any]:
    """What the ledger has replaced of Tensor's methods and torch's C functions."""
    patches = [e.change for e in LEDGER.entries() if e.state is State.APPLIED and isinstance(e.change, Patch)]
    originals = {patch.target: LEDGER.original(patch.target) for patch in patches if not patch.adds}
    return {
        target: value
        for target, value in originals.items()
        if callable(value)  # is_cuda is an attribute: test_cuda_availability.py
        and (target.startswith("torch:Tensor.") or (target.startswith("torch") and isinstance(value, C_FUNCTIONS)))
    }


def replaced() -> dict[str, Any]:
    """The functions as a script finds them now."""
    return {target: pkgutil.resolve_name(target) for target in OWN}


def of_tensor(target: str) -> bool:
    return target.startswith("torch:Tensor.")


def raised(function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[type, str]:
    try:
        function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - which one is what is asked
        return type(error), str(error)
    raise AssertionError("nothing raised")
