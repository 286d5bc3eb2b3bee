"""What the shim cannot run, it refuses: the error names the kernel, and the line or what is wrong with the launch."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from patcher.changes.triton.shim import CHANGES
from patcher.errors import PatcherError
from tests.contract.conftest import _shim

FILES = ("refused", "refused_launches")


def declared() -> list[str]:
    """The refused launches, read and not imported."""
    return [
        node.name
        for file in FILES
        for node in ast.parse(Path(__file__).with_name(f"{file}.py").read_text()).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(mark, ast.Call) and ast.unparse(mark.func) == "refused" for mark in node.decorator_list)
    ]


@pytest.fixture(scope="module")
def programs() -> Iterator[SimpleNamespace]:
    """The names of both files, imported with the shim in place."""
    modules = [f"tests.tiles.{file}" for file in FILES]
    for _ in _shim(CHANGES[0]):
        yield SimpleNamespace(**{k: v for name in modules for k, v in vars(importlib.import_module(name)).items()})
        for name in modules:
            del sys.modules[name]


def marked(function: object) -> int:
    """The number of the line that ends with ``# <-``; 0 if there is none."""
    lines, first = inspect.getsourcelines(function)  # type: ignore[arg-type]
    return next((first + place for place, line in enumerate(lines) if line.rstrip().endswith("# <-")), 0)


@pytest.mark.parametrize("name", declared())
def test_refused(programs: SimpleNamespace, name: str) -> None:
    """The message holds the kernel's name, its line, and what the case says."""
    kernel, says, launch = programs.REFUSED[name]
    with pytest.raises(PatcherError) as raised:
        launch()
    told = str(raised.value)
    assert kernel.fn.__name__ in told and says in told
    line = marked(kernel.fn)
    assert not line or f"{Path(kernel.fn.__code__.co_filename).name}:{line}" in told, (
        f"line {line} is not named in:\n{told}"
    )


def test_nothing_was_written(programs: SimpleNamespace) -> None:
    """A launch that is refused leaves its tensors as they were."""
    target = torch.full((16,), 5.0)
    for kernel in (programs.assembly_kernel, programs.try_kernel, programs.condition_kernel):
        with pytest.raises(PatcherError):
            kernel[(1,)](programs.X, target, 16)
    assert (target == 5).all()


def test_what_lies_outside_is_not_written(programs: SimpleNamespace) -> None:
    """A store that leaves its tensor is noticed when the programs have run, and has changed no other element."""
    whole = torch.full((20,), 5.0)
    with pytest.raises(PatcherError, match="outside of its tensors"):
        programs.far_kernel[(1,)](programs.X, whole[4:].clone(), 16)
    target = whole[:16].clone()
    with pytest.raises(PatcherError, match="outside of its tensors"):
        programs.far_kernel[(1,)](programs.X, target, 16)
    assert target[:12].tolist() == list(range(4, 16)) and (target[12:] == 5).all() and (whole == 5).all()


def test_after_a_refusal_the_kernel_can_be_launched(programs: SimpleNamespace) -> None:
    """A wrong launch does not spoil the kernel."""
    target = torch.zeros(16)
    with pytest.raises(PatcherError):
        programs.good_kernel[()](programs.X, target, 16, 16)
    programs.good_kernel[(2,)](programs.X, target, 16, 8)
    assert torch.equal(target, programs.X)
