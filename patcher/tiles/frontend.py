"""From a kernel's source to a program, for arguments of certain types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from patcher.tiles.builder import Builder
from patcher.tiles.check import check
from patcher.tiles.language import plain
from patcher.tiles.program import Program, Sequence, Value
from patcher.tiles.source import source_of
from patcher.tiles.statements import Statements
from patcher.tiles.structures import BlockPointer
from patcher.tiles.types import DType, Pointer


@dataclass(frozen=True)
class Known:
    """An argument that is part of the program: a ``tl.constexpr``, None, or the integer 1."""

    value: Any


@dataclass(frozen=True)
class Descriptor:
    """An argument that is a tensor descriptor: blocks of ``block_shape`` of a tensor of ``element``."""

    element: DType
    block_shape: tuple[int, ...]
    padding: str = "zero"


def read(fn: Callable[..., Any], arguments: Mapping[str, Any]) -> Program:
    """The program of the kernel ``fn``.

    Args:
        arguments: each parameter's type, or `Known`, or `Descriptor`, or a tuple of these.

    Raises:
        KernelNotSupported: the source holds what the language does not have, or what has no meaning here.
    """
    source = source_of(fn)
    builder = Builder()
    builder.line = source.place(source.tree)
    passed: list[tuple[str, Value]] = []
    with builder.inside(Sequence()) as body:
        names = {name: _argument(name, spec, passed) for name, spec in arguments.items()}
        Statements(source, builder, names, source.name).body(source.tree.body)
    program = Program(source.name, source.place(source.tree), tuple(passed), body)
    check(program)
    return program


def _argument(name: str, spec: Any, passed: list[tuple[str, Value]]) -> Any:
    if isinstance(spec, Known):
        return plain(spec.value)
    if isinstance(spec, tuple):
        parts = [_argument(f"{name}.{number}", part, passed) for number, part in enumerate(spec)]
        return type(spec)(*parts) if hasattr(spec, "_fields") else tuple(parts)
    if isinstance(spec, Descriptor):
        return _descriptor(name, spec, passed)
    value = Value(spec)
    passed.append((name, value))
    return value


def _descriptor(name: str, spec: Descriptor, passed: list[tuple[str, Value]]) -> BlockPointer:
    rank = len(spec.block_shape)
    base = _argument(f"{name}.base", Pointer(spec.element), passed)
    shape = _argument(f"{name}.shape", (DType("int64"),) * rank, passed)
    strides = _argument(f"{name}.strides", (DType("int64"),) * rank, passed)
    offsets = _argument(f"{name}.offsets", (DType("int32"),) * rank, passed)
    return BlockPointer(base, shape, strides, offsets, spec.block_shape, True, spec.padding)
