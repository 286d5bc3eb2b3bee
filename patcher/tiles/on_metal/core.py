"""What every part of the emitter stands on: lines, names, loops over elements, and exchanges between threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from patcher.tiles.aliases import Aliases
from patcher.tiles.on_metal.forms import Form, Held, Loop, Uniform
from patcher.tiles.on_metal.layouts import (
    Layout,
    bits_of,
    canonical,
    compact,
    filled,
    fits,
    index_text,
    registers,
    spare_mask,
)
from patcher.tiles.on_metal.names import NotOnMetal, size_of, stored_name, type_name
from patcher.tiles.on_metal.numbering import Numbering
from patcher.tiles.program import Value
from patcher.tiles.types import Pointer, Scalar, int64

Build = Callable[[list[str]], str]
"""Texts of operands to that of a result."""

THREADGROUP_BYTES = 32768
"""Threadgroup memory of a threadgroup, on every Apple GPU."""

LARGEST_SHARE = 256
"""Elements of one block that a thread may hold."""

UNROLLED = 32
"""Turns of the longest loop over registers that is unrolled."""

SIMDGROUP_BITS = 5
"""log2 of the threads of a simdgroup."""


@dataclass(frozen=True)
class Access:
    """A read ("r"), write ("w") or atomic operation ("a") on device memory since the last barrier.

    Attributes:
        roots: the arguments that it may touch.
        pointer: the pointer, by which each thread meets its own elements again; None where that is not known.
        layout: how elements are spread over threads.
        alone: whether each address is met by one thread alone.
    """

    kind: str
    roots: frozenset[str]
    pointer: Value | None = None
    layout: Layout = ()
    alone: bool = False

    def clashes(self, other: Access) -> bool:
        """Whether another thread may touch the same element, and the order counts."""
        if self.kind == other.kind and self.kind in "ra":
            return False
        same = self.alone and self.pointer is other.pointer and self.layout == other.layout
        return not same and bool(self.roots & other.roots)


class Core:
    """Writes into one list of lines at a time.

    Attributes:
        threads: of a threadgroup.
        forms: how values stand in the shader.
        used: the functions of `prelude` that are called.
        scratch: bytes of threadgroup memory that are needed.
        pending: what was done to device memory since the last barrier.
        variables: names of registers that are assigned again.
        numbering: which values are the same.
        origins: as ``aliases``, but that tensors which may overlap are still told from one another.
        pointers: of registers that hold pointers, their type and the arguments that these may come from.
        unrolled: turns of the longest loop over registers that is unrolled.
        arguments: what the tensors that are passed are called in the shader.
    """

    def __init__(self, threads: int, aliases: Aliases, origins: Aliases) -> None:
        self.threads, self.thread_bits = threads, bits_of(threads)
        self.aliases, self.origins = aliases, origins
        self.pointers: dict[str, tuple[str, frozenset[str]]] = {}
        self.arguments: dict[str, str] = {}
        self.lines: list[str] = []
        self.functions: list[str] = []
        self.depth = 1
        self.forms: dict[Value, Form] = {}
        self.used: set[str] = set()
        self.scratch = 0
        self.pending: list[Access] = []
        self.shared = False  # whether threads may still read what is in threadgroup memory
        self.numbers = 0
        self.variables: set[str] = set()
        self.numbering = Numbering()
        self.unrolled = UNROLLED

    # -- text ------------------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """Appends a line."""
        self.lines.append("  " * self.depth + text)

    @contextmanager
    def braces(self, head: str = "", tail: str = "}") -> Iterator[None]:
        """Lines within braces."""
        self.line(f"{head} {{".lstrip())
        self.depth += 1
        yield
        self.depth -= 1
        self.line(tail)

    def fresh(self, letter: str) -> str:
        """A name that nothing else has."""
        self.numbers += 1
        return f"{letter}{self.numbers}"

    def uses(self, name: str) -> None:
        """Notes a function of `prelude`."""
        self.used.add(name)

    def type_of(self, value: Value) -> str:
        """The type of an element in a register."""
        if isinstance(value.scalar, Pointer):
            return self.pointer_type(value.scalar, self.aliases.writable(value))
        return type_name(value.scalar)

    def pointer_type(self, scalar: Pointer, writable: bool) -> str:
        """A pointer into device memory."""
        if isinstance(scalar.element_ty, Pointer):
            raise NotOnMetal("pointers that lie in memory")
        return f"{'' if writable else 'const '}device {stored_name(scalar.element_ty)}*"

    # -- registers -------------------------------------------------------------------------------------------------

    def canonical(self, value: Value) -> Layout:
        """The layout in which a value stands where nothing else decides."""
        return canonical(bits_of(value.type.numel), self.thread_bits)

    def declare(self, type: str, layout: Layout) -> Held:
        """Registers of their own. Raises NotOnMetal where they are too many."""
        count = registers(layout)
        if count > LARGEST_SHARE:
            raise NotOnMetal(f"{count} elements of a block for each thread, and {LARGEST_SHARE} are the most")
        name = self.fresh("v")
        self.line(f"{type} {name}[{count}];")
        return Held(name, layout)

    def place_for(self, value: Value, layout: Layout) -> Held:
        """Registers for a value. Raises as `declare` does."""
        type = self.type_of(value)
        place = self.declare(type, layout)
        if isinstance(value.scalar, Pointer):
            self.pointers[place.name] = type, self.origins.of(value)
        return place

    def common(self, forms: list[Form], value: Value) -> Layout:
        """A layout in which most operands are at hand."""
        bits = bits_of(value.type.numel)
        held = [form.layout for form in forms if isinstance(form, Held) and any(form.layout)]
        if not held:
            return self.canonical(value)
        most = max(held, key=lambda layout: (sum(place is not None for place in layout), -registers(layout)))
        if len(most) != bits:
            raise NotOnMetal("operands of different shapes")
        return filled(compact(most), self.thread_bits)

    @contextmanager
    def each(self, layout: Layout, owned: bool = False) -> Iterator[Loop]:
        """Code for each of the thread's elements; with ``owned`` one thread alone has each element."""
        count, spare = registers(layout), spare_mask(layout, self.thread_bits) if owned else 0
        with self.braces(f"if ((t & {spare}u) == 0u)" if spare else ""):
            if count == 1:
                yield Loop(self.line, self.fresh)
                return
            if count <= self.unrolled:  # registers that are counted by a variable would lie in memory
                self.lines.append("#pragma unroll")
            with self.braces(f"for (uint r = 0u; r < {count}u; ++r)"):
                yield Loop(self.line, self.fresh)

    def settled(self, form: Form, scalar: Scalar, layout: Layout) -> Form:
        """The form from which threads can take their elements of ``layout`` themselves."""
        if isinstance(form, Held) and not fits(form.layout, layout):
            return self.exchanged(form, scalar, layout)
        return form

    def compute(self, value: Value, operands: list[Form], scalars: list[Scalar], layout: Layout, build: Build) -> Held:
        """Registers for ``build(texts of the operands)``."""
        settled = [self.settled(form, s, layout) for form, s in zip(operands, scalars, strict=True)]
        result = self.place_for(value, layout)
        with self.each(layout) as loop:
            text = build([form.at(loop, layout) for form in settled])
            self.line(f"{result.at(loop, layout)} = {text};")
        return result

    def held(self, value: Value, layout: Layout) -> Held:
        """A value in registers of ``layout``, all of which are its own: half of a split block is copied."""
        form = self.forms[value]
        if isinstance(form, Held) and form.layout == layout and not form.base:
            return form
        return self.compute(value, [form], [value.scalar], layout, lambda texts: texts[0])

    def scalar(self, value: Value) -> str:
        """The text of a scalar value."""
        form = self.forms[value]
        return form.at(Loop(self.line, self.fresh), ())

    def put(self, value: Value, text: str) -> None:
        """A scalar with a name of its own."""
        name = self.fresh("s")
        self.line(f"{self.type_of(value)} {name} = {text};")
        self.forms[value] = Uniform(name)

    # -- between threads -------------------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Everything before happens before everything after, in threadgroup memory and, if needed, device memory."""
        flags = "mem_flags::mem_threadgroup"
        if self.pending:
            flags += " | mem_flags::mem_device"
        self.line(f"threadgroup_barrier({flags});")
        self.pending, self.shared = [], False

    def array(self, type: str, count: int, size: int, offset: int = 0) -> str:
        """A name for threadgroup memory of ``count`` elements. Raises NotOnMetal where there is not enough."""
        need = offset + count * size
        if need > THREADGROUP_BYTES:
            raise NotOnMetal(f"{need} bytes of threadgroup memory, and there are {THREADGROUP_BYTES}")
        self.scratch = max(self.scratch, need)
        if self.shared:
            self.barrier()
        name = self.fresh("m")
        place = f"scratch + {offset // 8}" if offset else "scratch"
        self.line(f"threadgroup {type}* {name} = (threadgroup {type}*)({place});")
        return name

    def shared_block(self, form: Form, scalar: Scalar, bits: int, offset: int = 0) -> str:
        """Writes a block into threadgroup memory, in order of its index; call `publish` before it is read."""
        layout = compact(form.layout) if isinstance(form, Held) else canonical(bits, self.thread_bits)
        layout = filled(layout, self.thread_bits)
        name = self.array(type_name(scalar), 1 << bits, size_of(scalar), offset)
        with self.each(layout, owned=True) as loop:
            self.line(f"{name}[{index_text(layout)}] = {form.at(loop, layout)};")
        return name

    def publish(self) -> None:
        """What was written to threadgroup memory can be read; it stays until the next barrier."""
        self.barrier()
        self.shared = True

    def exchanged(self, form: Held, scalar: Scalar, layout: Layout) -> Held:
        """The elements where ``layout`` wants them; as many at a time as threadgroup memory has room for.

        Pointers go as their distances from the argument that they come from.
        """
        if isinstance(scalar, Pointer):
            return self.exchanged_pointers(form, layout)
        kept = [(own, wanted) for own, wanted in zip(form.layout, layout, strict=True) if own is not None]
        target, type = compact(tuple(wanted for _, wanted in kept)), type_name(scalar)
        source = filled(compact(tuple(own for own, _ in kept)), self.thread_bits)
        moving = Held(form.name, tuple(own for own, _ in kept), form.base)
        result = self.declare(type, target)
        room = min(len(kept), bits_of(THREADGROUP_BYTES // size_of(scalar)))
        for part in range(1 << (len(kept) - room)):
            name = self.array(type, 1 << room, size_of(scalar))
            with self.each(source, owned=True) as loop:
                self.line(
                    f"{_only(source[room:], part)}{name}[{index_text(source[:room])}] = {moving.at(loop, source)};"
                )
            self.publish()
            with self.each(target) as loop:
                read = f"{name}[{index_text(target[:room])}]"
                self.line(f"{_only(target[room:], part)}{result.at(loop, target)} = {read};")
        places = iter(target)
        return Held(result.name, tuple(None if own is None else next(places) for own in form.layout))

    def exchanged_pointers(self, form: Held, layout: Layout) -> Held:
        """Pointers of other threads. Raises NotOnMetal where they may come from several tensors."""
        type, roots = self.pointers.get(form.name, ("", frozenset()))
        if len(roots) != 1:
            raise NotOnMetal("pointers into one of several tensors, which change threads")
        first = self.arguments[next(iter(roots))]
        own = compact(form.layout)
        far = self.declare("long", own)
        with self.each(own) as loop:
            self.line(f"{far.at(loop, own)} = {_bytes(form.at(loop, own))} - {_bytes(first)};")
        there = self.exchanged(Held(far.name, own), int64, layout)
        places = compact(there.layout)
        result = self.declare(type, places)
        with self.each(places) as loop:
            self.line(f"{result.at(loop, places)} = ({type})({_bytes(first, type)} + {there.at(loop, places)});")
        self.pointers[result.name] = type, roots
        return Held(result.name, places)

    # -- device memory ---------------------------------------------------------------------------------------------

    def touch(self, access: Access) -> None:
        """Puts a barrier before an access that another thread's may not overtake."""
        if any(access.clashes(other) for other in self.pending):
            self.line("threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);")
            self.pending, self.shared = [], False
        self.pending.append(access)


def _bytes(pointer: str, type: str = "const") -> str:
    """A pointer to bytes where ``pointer`` points, which reads alone as one of ``type`` does."""
    return f"({'const ' * type.startswith('const')}device char*)({pointer})"


def _only(places: Layout, part: int) -> str:
    """A condition: the bits at ``places`` are those of ``part``."""
    return f"if ({index_text(places)} == {part}u) " if places else ""
