"""torch's database of operators, with each dtype and direction that torch's own mps tests run.

Source: torch 2.13.0, ``torch/testing/_internal/common_methods_invocations.py`` (the operators, their sample inputs and
decorators), ``common_mps.py`` (what is expected to fail on mps) and, for how the two are used, ``test/test_mps.py`` of
PyTorch's repository, class TestConsistency: ``test_output_match`` runs every supported dtype out of
``get_all_dtypes()``, ``test_output_grad_match`` float32 and float16, and the lists of the first hold for the second as
well.
"""

from __future__ import annotations

import copy
import platform
import sys
import types
import unittest
from typing import Any

import torch

from tests.fidelity.cases import dtype_name

FORWARD, GRADIENT, ERRORS = "forward", "gradient", "error"
TESTS = {
    FORWARD: ("TestConsistency", "test_output_match"),
    GRADIENT: ("TestConsistency", "test_output_grad_match"),
    ERRORS: ("TestErrorInputs", "test_error_inputs"),
}
"""Classes and methods of test/test_mps.py."""
GRADIENT_DTYPES = (torch.float32, torch.float16)


class Database:
    """torch's operators, and the decorators with which its mps tests run them."""

    def __init__(self, macos: tuple[int, int]) -> None:
        prepare(macos)
        from torch.testing._internal import common_methods_invocations, common_mps

        operators = [*common_methods_invocations.op_db, *_bicubic(common_methods_invocations.op_db)]
        self.ops: dict[str, Any] = {op.full_name: op for op in operators}
        self.lists: dict[str, dict[str, Any]] = {}
        self._plain = {name: op.decorators for name, op in self.ops.items()}
        self._decorators: dict[str, dict[str, Any]] = {}
        for direction, modifier in (
            (FORWARD, common_mps.mps_ops_modifier),
            (GRADIENT, common_mps.mps_ops_grad_modifier),
        ):
            self.lists[direction] = _locals_of(modifier, operators)
            self._decorators[direction] = {name: op.decorators for name, op in self.ops.items()}
        self._restore()
        getattr(common_mps, "mps_ops_error_inputs_modifier", list)(
            operators
        )  # 2.15 has none: nothing is expected to fail
        self._decorators[ERRORS] = {name: op.decorators for name, op in self.ops.items()}
        self._restore()

    def dtypes(self, name: str) -> list[str]:
        """Those in which torch tests an operator on a Mac."""
        from torch.testing._internal.common_dtype import get_all_dtypes

        return sorted(map(dtype_name, self.ops[name].supported_dtypes("mps") & set(get_all_dtypes())))

    def decorators(self, name: str, dtype: str | None, direction: str) -> list[Any]:
        """What torch puts around its test of an operator; that of error inputs has no dtype."""
        op = self.ops[name]
        op.decorators = self._decorators[direction][name]
        kind = getattr(torch, dtype) if dtype else None
        decorators: list[Any] = op.get_decorators(*TESTS[direction], "mps", kind, {})
        op.decorators = self._plain[name]
        return decorators

    def list_naming(self, name: str, dtype: str, direction: str) -> str:
        """The list in common_mps.py that has an operator; empty where none does."""
        op, kind = self.ops[name], getattr(torch, dtype)
        key = op.name + op.variant_test_name
        for which in [FORWARD] if direction == FORWARD else [direction, FORWARD]:
            for title, entries in self.lists[which].items():
                if isinstance(entries, dict) and key in entries and (entries[key] is None or kind in entries[key]):
                    return title if which == FORWARD or "GRAD" in title else f"{title}_GRAD"
        lists = self.lists[FORWARD]
        if kind.is_complex and key not in lists.get("SUPPORTED_COMPLEX_OPS", [key]):
            return "SUPPORTED_COMPLEX_OPS"
        if kind.is_complex and key in lists.get("UNSUPPORTED_COMPLEX_OPS", []):
            return "UNSUPPORTED_COMPLEX_OPS"
        return ""

    def _restore(self) -> None:
        """The operators are torch's own, which another database may share."""
        for name, op in self.ops.items():
            op.decorators = self._plain[name]


def prepare(macos: tuple[int, int]) -> None:
    """What must be so before torch's test modules are imported: they want ``expecttest``, and a version of macOS."""
    _supply_expecttest()
    _answer_macos(macos)


def _bicubic(operators: list[Any]) -> list[Any]:
    """test_mps.py makes one more operator, out of the bilinear one."""
    made = []
    for op in operators:
        if op.name == "_upsample_bilinear2d_aa":
            bicubic = copy.deepcopy(op)
            bicubic.name, bicubic.op = "_upsample_bicubic2d_aa", torch.ops.aten._upsample_bicubic2d_aa
            made.append(bicubic)
    return made


def _supply_expecttest() -> None:
    """torch's test modules import ``expecttest`` for the base class of TestCase, which nothing here uses."""
    if "expecttest" not in sys.modules:
        module = types.ModuleType("expecttest")
        module.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = module


def _answer_macos(version: tuple[int, int]) -> None:
    """Some entries hold for some versions of macOS; torch asks for it once, when common_utils is imported."""
    text = ".".join(map(str, version))
    platform.mac_ver = lambda *_, **__: (text, ("", "", ""), "arm64")


def _locals_of(modifier: Any, operators: list[Any]) -> dict[str, Any]:
    """Calls a modifier, which adds its lists to the operators' decorators; returns the lists, its local variables."""
    found: dict[str, Any] = {}

    def watch(frame: types.FrameType, event: str, _: object) -> None:
        if event == "return" and frame.f_code is modifier.__code__:
            found.update({name: value for name, value in frame.f_locals.items() if name.isupper()})

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        modifier(operators)
    finally:
        sys.setprofile(before)
    return found
