"""How values stand in a shader: as a scalar, as registers of the threads, or as a rule that computes any element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from patcher.tiles.on_metal.layouts import Layout, index_text, moved, register_text


@dataclass
class Loop:
    """Code that runs for the thread's elements, in which an element is named only once."""

    line: Callable[[str], None]
    fresh: Callable[[str], str]
    known: dict[tuple[int, Layout], str] = field(default_factory=dict)

    def name(self, key: tuple[int, Layout], type: str, text: str) -> str:
        """A name for ``text`` in what follows."""
        self.known[key] = self.fresh("e")
        self.line(f"{type} {self.known[key]} = {text};")
        return self.known[key]


@dataclass(frozen=True, eq=False)
class Uniform:
    """One number for all threads and elements."""

    text: str

    def at(self, loop: Loop, places: Layout) -> str:
        """The number."""
        return self.text

    def moved(self, to: tuple[int, ...], bits: int) -> Uniform:
        """It is the same everywhere."""
        return self


@dataclass(frozen=True, eq=False)
class Held:
    """Elements in registers. Of bits whose place is None the value does not depend.

    Attributes:
        name: of the registers.
        layout: where elements are.
        base: bits that all numbers of registers have besides.
    """

    name: str
    layout: Layout
    base: int = 0

    def at(self, loop: Loop, places: Layout) -> str:
        """An element that the thread holds itself."""
        base = f" | {self.base}u" if self.base else ""
        return f"{self.name}[{register_text(self.layout, places)}{base}]"

    def moved(self, to: tuple[int, ...], bits: int) -> Held:
        """The same registers under other indices."""
        return Held(self.name, moved(self.layout, to, bits), self.base)


@dataclass(frozen=True, eq=False)
class Counted:
    """``start``, ``start + 1``, ..."""

    start: int

    def at(self, loop: Loop, places: Layout) -> str:
        """The index itself, and the start."""
        index = f"int({index_text(places)})"
        return f"({index} + {self.start})" if self.start else index

    def moved(self, to: tuple[int, ...], bits: int) -> Moved:
        """The rule for other indices."""
        return Moved(self, to)


@dataclass(frozen=True, eq=False)
class Mapped:
    """A function of other rules, cheap enough to be computed wherever an element is needed.

    Attributes:
        type: Metal's name of the type.
        operands: rules and scalars, no registers.
        build: texts of the operands to that of the result.
        size: how many functions this stands for.
    """

    type: str
    operands: tuple[Form, ...]
    build: Callable[[list[str]], str]
    size: int

    def at(self, loop: Loop, places: Layout) -> str:
        """The name of the element."""
        key = (id(self), places)
        if key in loop.known:
            return loop.known[key]
        text = self.build([operand.at(loop, places) for operand in self.operands])
        return loop.name(key, self.type, text)

    def moved(self, to: tuple[int, ...], bits: int) -> Moved:
        """The rule for other indices."""
        return Moved(self, to)


@dataclass(frozen=True, eq=False)
class Moved:
    """Another rule under other indices: its bit i is bit ``to[i]`` of this one."""

    inner: Counted | Mapped | Moved
    to: tuple[int, ...]

    def at(self, loop: Loop, places: Layout) -> str:
        """The inner rule's element."""
        return self.inner.at(loop, tuple(places[bit] for bit in self.to))

    def moved(self, to: tuple[int, ...], bits: int) -> Moved:
        """The rule for other indices."""
        return Moved(self.inner, tuple(to[bit] for bit in self.to))


Form: TypeAlias = "Uniform | Held | Counted | Mapped | Moved"


def size_of_rule(form: Form) -> int:
    """How many functions are computed for an element."""
    return form.size if isinstance(form, Mapped) else size_of_rule(form.inner) if isinstance(form, Moved) else 0
