"""No public function of ``torch.cuda`` ends in a C function that torch lacks: it is answered, or refused by name."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from patcher.changes import catalogue
from patcher.changes.torch.cuda_library import ABSENT
from patcher.errors import NotOnMac
from patcher.replacements.torch.cuda_library import REFUSALS
from tests.process import answer, run_python

LEFT = {
    "torch.cuda:get_arch_list": "is an empty list before it asks",
    "torch.cuda.memory:caching_allocator_enable": "does nothing where CUDA has not been started",
    "torch.cuda.memory:caching_allocator_disabled": "Inductor's: it asks where it records graphs",
    "torch.cuda.memory:change_current_allocator": "takes a CUDAPluggableAllocator, which is refused",
    "torch.cuda.memory:host_memory_stats_as_nested_dict": "is empty where CUDA has not been started",
}
"""Public functions that are left as they are, each with the reason."""

CALLS = """
from patcher import patch_for_mac
patch_for_mac(simulate="M1 8GB")
import json, torch
def outcome(call):
    try:
        return repr(eval(call))
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
print("ANSWER", json.dumps({call: outcome(call) for call in %r}))
"""
REFUSED = {
    "torch.cuda.nccl.version()": "NotOnMac: torch.cuda.nccl.version() belongs to NCCL",
    "torch.cuda.tunable.enable(val=True)": "NotOnMac: torch.cuda.tunable.enable() belongs to the products of cuBLAS",
}


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def lacking(function: Any) -> bool:
    """Whether the body of ``function`` names a C function for CUDA that this torch lacks."""
    import torch

    named = {name for code in codes(function.__code__) if "_C" in code.co_names for name in code.co_names}
    return any(name.startswith(("_cuda_", "_nccl_")) and not hasattr(torch._C, name) for name in named)


def public_functions() -> Iterator[tuple[str, Any]]:
    """(target, function) of every public function and method in torch.cuda and its modules, where it is defined."""
    import torch.cuda.nccl
    import torch.cuda.tunable  # noqa: F401 - looked at below

    for place in [name for name in sys.modules if name == "torch.cuda" or name.startswith("torch.cuda.")]:
        for name, value in vars(sys.modules[place]).items():
            members = vars(value).items() if isinstance(value, type) else [("", value)]
            for member, found in members:
                function = inspect.unwrap(found) if callable(found) else found
                public = not name.startswith("_") and (member == "__init__" or not member.startswith("_"))
                if public and isinstance(function, types.FunctionType) and function.__module__ == place:
                    yield f"{place}:{name}.{member}".rstrip("."), function


def test_every_public_function_is_answered_or_refused() -> None:
    """A release of torch with one more fails here."""
    lacks = {target for target, function in public_functions() if lacking(function)}
    assert len(lacks) > 50
    changed = {getattr(change, "target", None) for change in catalogue()}
    assert lacks - changed - set(LEFT) == set() and set(LEFT) <= lacks


@pytest.mark.parametrize("target", [target for absent in ABSENT for target in absent.targets])
def test_a_refusal_names_what_was_called_and_what_to_write(target: str) -> None:
    refuse = getattr(REFUSALS, target.replace(".", "_").replace(":", "__"))
    name = target.replace(":", ".")
    with pytest.raises(NotOnMac, match=rf"^{name}\(\) belongs to .*\n  expected: +\w"):
        refuse(1, device=0)


def test_a_script_is_refused() -> None:
    found = answer(run_python("-c", CALLS % list(REFUSED), timeout=120))
    assert {call: found[call].startswith(REFUSED[call]) for call in REFUSED} == dict.fromkeys(REFUSED, True), found
