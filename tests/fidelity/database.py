"""The cases: each operator of torch's database, with each dtype and direction that torch's own mps tests run.

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
from dataclasses import dataclass
from typing import Any

import torch

FORWARD, GRADIENT = "forward", "gradient"
TESTS = {FORWARD: "test_output_match", GRADIENT: "test_output_grad_match"}
GRADIENT_DTYPES = (torch.float32, torch.float16)


@dataclass(frozen=True, order=True)
class Case:
    """One operator, dtype and direction.

    Attributes:
        op: name and variant as in torch's database, e.g. ``"div.floor_rounding"``.
        dtype: e.g. ``"float16"``.
        direction: ``"forward"`` or ``"gradient"``.
    """

    op: str
    dtype: str
    direction: str

    def __str__(self) -> str:
        return f"{self.op} {self.dtype} {self.direction}"


class Database:
    """torch's operators, and the decorators with which its mps tests run them."""

    def __init__(self, macos: tuple[int, int]) -> None:
        _supply_expecttest()
        _answer_macos(macos)
        from torch.testing._internal import common_methods_invocations, common_mps

        operators = [*common_methods_invocations.op_db, *_bicubic(common_methods_invocations.op_db)]
        self.ops: dict[str, Any] = {op.full_name: op for op in operators}
        self.lists: dict[str, dict[str, Any]] = {}
        self._decorators: dict[str, dict[str, Any]] = {FORWARD: {}, GRADIENT: {}}
        for direction, modifier in (
            (FORWARD, common_mps.mps_ops_modifier),
            (GRADIENT, common_mps.mps_ops_grad_modifier),
        ):
            self.lists[direction] = _locals_of(modifier, operators)
            self._decorators[direction] = {name: op.decorators for name, op in self.ops.items()}

    def cases(self) -> list[Case]:
        """Every case, sorted."""
        from torch.testing._internal.common_dtype import get_all_dtypes

        found = []
        for name, op in self.ops.items():
            for dtype in op.supported_dtypes("mps") & set(get_all_dtypes()):
                found.append(Case(name, dtype_name(dtype), FORWARD))
                if dtype in GRADIENT_DTYPES:
                    found.append(Case(name, dtype_name(dtype), GRADIENT))
        return sorted(found)

    def decorators(self, case: Case) -> list[Any]:
        """What torch puts around its test of this case."""
        op = self.ops[case.op]
        op.decorators = self._decorators[case.direction][case.op]
        decorators: list[Any] = op.get_decorators(
            "TestConsistency", TESTS[case.direction], "mps", getattr(torch, case.dtype), {}
        )
        return decorators


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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
