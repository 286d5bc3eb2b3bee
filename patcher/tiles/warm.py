"""Launches of a kind that was launched before: what the kind decides is not asked again.

The kind of a launch is what decides which shader runs, in a form that is made quickly: element types of tensors, widths
of numbers, values of constants, names of keywords. Of what is not quickly told, such as tuples, descriptors and tensors
of other devices, there is none, and each launch is looked at as the first one is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch

from patcher import environment
from patcher.tiles.backends import Launched, launches
from patcher.tiles.language import Jitted
from patcher.tiles.on_metal import Launcher, Shader, overlapping
from patcher.tiles.program import Program
from patcher.tiles.types import DType

Kind = tuple[Any, ...]

CONSTANTS = (DType, Jitted, torch.dtype)
"""Constants that are the same if they are equal, beside whole numbers, strings, yes, no and None."""


class UnusualError(Exception):
    """An argument of which no kind is made."""


def kind_of(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], constant: Sequence[bool], variable: frozenset[str]
) -> Kind | None:
    """The kind of a launch, or None.

    Args:
        constant: for each parameter in order whether it is known when the program is made.
        variable: the names of those that are not; any other keyword is a constant or an option of the compiler.
    """
    if len(args) > len(constant):
        return None
    try:
        parts = [_constant(value) if fixed else _argument(value) for value, fixed in zip(args, constant, strict=False)]
        if kwargs:
            parts.append(tuple(kwargs))
            for name, value in kwargs.items():
                parts.append(_argument(value) if name in variable else _constant(value))
    except UnusualError:
        return None
    return tuple(parts)


def _argument(value: Any) -> Any:
    """What a value tells of its type; 1 tells itself, as it may become part of the program."""
    kind = type(value)
    if kind is int:
        if -0x80000000 <= value <= 0x7FFFFFFF:
            return 1 if value == 1 else int
        if -0x8000000000000000 <= value <= 0xFFFFFFFFFFFFFFFF:
            return "int64" if value <= 0x7FFFFFFFFFFFFFFF else "uint64"
    elif kind is float or kind is bool:
        return kind
    elif value is None:
        return None
    elif isinstance(value, torch.Tensor) and value.is_mps:
        return value.dtype
    raise UnusualError


def _constant(value: Any) -> Any:
    """Equal for constants that make the same program: not for 1 and True, nor for 0.0 and -0.0."""
    kind = type(value)
    if kind is int or kind is bool or kind is str:
        return (kind, value)
    if kind is float:
        return (kind, value.hex())
    if value is None or isinstance(value, CONSTANTS):
        return value
    raise UnusualError


class Way:
    """How launches of one kind run.

    Args:
        program: what they run.
        names: of the values that a launch has: defaults, positional arguments, keywords; later ones count.
        picked: the names of what is passed to the program, in order.
        shader: one that runs it.

    Attributes:
        launchers: the shaders for tensors that lie in one another, and for others.
    """

    def __init__(self, program: Program, names: Sequence[str], picked: Sequence[str], shader: Shader) -> None:
        self.program, self.names = program, names
        self.launchers: dict[bool, Launcher] = {}
        places = {name: number for number, name in enumerate(names)}
        order = [places[name] for name in picked]
        self.tensors = _picker([order[number] for number in shader.tensors])
        self.whole = _picker([order[number] for number in shader.whole])
        self.real = _picker([order[number] for number in shader.real])
        self.launched = Launched(program.name, "metal")

    def run(self, values: tuple[Any, ...], grid: tuple[int, int, int]) -> bool:
        """Launches the shader for these tensors; says whether there is one that can run."""
        tensors = self.tensors(values)
        launcher = self.launchers.get(overlapping(tensors))
        if launcher is None or not launcher.admits(grid) or environment.triton_kernels() != "metal":
            return False
        launcher(grid, tensors, self.whole(values), self.real(values))
        launches[self.launched] += 1
        return True


def _picker(places: Sequence[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """What takes the values at these places."""
    if len(places) < 2:
        return lambda values: tuple([values[place] for place in places])
    return itemgetter(*places)
