"""A block program as Metal source: one threadgroup for each program of the grid."""

from __future__ import annotations

import re
from dataclasses import dataclass

from patcher.tiles.aliases import Aliases, aliases_of
from patcher.tiles.on_metal import prelude
from patcher.tiles.on_metal.dot import Dot
from patcher.tiles.on_metal.forms import Uniform
from patcher.tiles.on_metal.names import NotOnMetal, cast
from patcher.tiles.program import Program, Value
from patcher.tiles.types import DType, Pointer, float32, int64
from patcher.tiles.waiting import watching

LARGEST_GROUP = 1024
"""Threads of a threadgroup."""

SMALLEST_GROUP = 32
"""Threads of a simdgroup."""

MOST_BUFFERS = 31
"""Buffers that a Metal function takes."""

MOST_LINES = 20000
"""Lines of a shader: compilers take long for more."""

USUAL_SHARE = 64
"""Elements of the largest block for a thread, beyond which a threadgroup gets more threads than it was given."""


@dataclass(frozen=True)
class Shader:
    """Attributes:
    name: the function's.
    source: Metal source.
    threads: of a threadgroup.
    memory: bytes of threadgroup memory.
    tensors: which arguments are tensors.
    written: which of them are written.
    whole: which arguments are passed in one list of integers, in order.
    real: which arguments are passed in one list of floats.
    """

    name: str
    source: str
    threads: int
    memory: int
    tensors: tuple[int, ...]
    written: tuple[int, ...]
    whole: tuple[int, ...]
    real: tuple[int, ...]


def shader_of(program: Program, num_warps: int, overlapping: bool, most: int = LARGEST_GROUP) -> Shader:
    """The shader that runs ``program``.

    Args:
        num_warps: simdgroups of a threadgroup, if blocks are large enough for them.
        overlapping: whether tensors that are passed may lie in one another.
        most: threads that a threadgroup may have, a power of two.

    Raises:
        NotOnMetal: the program holds what is not done here, or does not go into Metal's limits.
    """
    threads = threads_for(program, num_warps, most)
    aliases = aliases_of(program)
    if overlapping:
        everything = frozenset(name for name, value in program.arguments if isinstance(value.scalar, Pointer))
        aliases.roots = dict.fromkeys(aliases.roots, everything)
        aliases.written = set(everything) if aliases.written else set()
    return Emitter(program, threads, aliases).shader()


def threads_for(program: Program, num_warps: int, most: int = LARGEST_GROUP) -> int:
    """A power of two from 32 to ``most``."""
    largest = max((value.type.numel for op in program.operations() for value in op.results), default=1)
    threads = min(most, 32 << max(0, num_warps.bit_length() - 1), max(SMALLEST_GROUP, largest))
    while threads < most and largest // threads > USUAL_SHARE:
        threads *= 2
    return threads


class Emitter(Dot):
    """Writes one program."""

    def __init__(self, program: Program, threads: int, aliases: Aliases) -> None:
        super().__init__(threads, aliases, aliases_of(program))
        self.program = program
        self.frames = []
        used = {value for op in program.operations() for value in op.operands}
        blocks = [program.body, *(block for op in program.operations() for block in op.blocks)]
        self.needed = frozenset(used | {value for block in blocks for value in block.results or ()})

    def shader(self) -> Shader:
        """The whole source."""
        check_waiting(self.program)
        name = "tile_" + re.sub(r"\W", "_", self.program.name.rpartition(".")[2])
        whole, real, parameters = self.parameters()
        self.sequence(self.program.body)
        words = -(-self.scratch // 8)
        memory = [f"  threadgroup ulong scratch[{words}];"] if words else []
        if len(self.lines) + len(self.functions) > MOST_LINES:
            raise NotOnMetal(f"{len(self.lines)} lines, and {MOST_LINES} are the most")
        limit = f"[[max_total_threads_per_threadgroup({self.threads})]]"
        kernel = f"{limit} kernel void {name}(\n    " + ",\n    ".join(parameters) + ") {"
        body = "\n".join([*self.functions, kernel, *memory, *self.lines, "}", ""])
        tensors = [n for n, (_, value) in enumerate(self.program.arguments) if isinstance(value.scalar, Pointer)]
        written = [number for number in tensors if self.program.arguments[number][0] in self.aliases.written]
        source = prelude.text(self.used) + "\n" + body
        return Shader(name, source, self.threads, 8 * words, tuple(tensors), tuple(written), whole, real)

    def parameters(self) -> tuple[tuple[int, ...], tuple[int, ...], list[str]]:
        """Which arguments are integers and floats, and the function's parameters; gives all arguments their forms."""
        whole: list[int] = []
        real: list[int] = []
        found: list[str] = []
        for number, (name, value) in enumerate(self.program.arguments):
            if isinstance(value.scalar, Pointer):
                self.arguments[name] = f"p{number}"
                found.append(f"{self.type_of(value)} p{number}")
                self.forms[value] = Uniform(f"p{number}")
            elif value.number.is_floating():
                self.forms[value] = self.passed(value, f"real[{len(real)}]", float32)
                real.append(number)
            else:
                self.forms[value] = self.passed(value, f"whole[{len(whole)}]", int64)
                whole.append(number)
        found += ["constant long* whole"] if whole else []
        found += ["constant float* real"] if real else []
        if len(found) > MOST_BUFFERS:
            raise NotOnMetal(f"{len(found)} buffers, and {MOST_BUFFERS} are the most")
        found = [f"{text} [[buffer({number})]]" for number, text in enumerate(found)]
        found += ["uint3 group [[threadgroup_position_in_grid]]", "uint3 groups [[threadgroups_per_grid]]"]
        return tuple(whole), tuple(real), [*found, "uint t [[thread_index_in_threadgroup]]"]

    def passed(self, value: Value, text: str, dtype: DType) -> Uniform:
        """A number of the launch as the program's type."""
        name = self.fresh("s")
        self.line(f"const {self.type_of(value)} {name} = {cast(text, dtype, value.scalar, self.uses)};")
        return Uniform(name)


def check_waiting(program: Program) -> None:
    """Raises NotOnMetal where programs wait for one another: Metal orders no device memory among threadgroups."""
    if watching(program, aliases_of(program)):
        raise NotOnMetal("its programs wait for one another")
    told: set[Value] = set()
    found = list(program.operations())
    before = -1
    while before != len(told):
        before = len(told)
        for op in found:
            results = [op.results, *(block.parameters for block in op.blocks)]
            handed = [value for block in op.blocks for value in block.results or ()]
            if op.kind in ("atomic", "cas") or told & {*op.operands, *handed}:
                told |= {value for values in results for value in values}
    for op in found:
        conditions = op.operands[:3] if op.kind == "for" else op.operands if op.kind == "if" else ()
        if op.kind == "while":
            conditions = op.blocks[0].results or ()
        masks = op.operands[1:2] if op.kind == "load" else ()
        if told & {*conditions, *masks}:
            raise NotOnMetal("its programs wait for one another")
