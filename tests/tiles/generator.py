"""Writes kernels at random: numbers and blocks of any dtype, branches, loops, loads, stores, functions.

What they write is legal Triton that means the same in the interpreter: nothing is computed of constants alone (which
divide as in Python), no block is asked for its truth, and every sum is of whole numbers.
"""

from __future__ import annotations

import random

INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")

HEAD = '''"""Written by tests/tiles/generator.py."""

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case


@triton.jit
def mixed(x, y):
    return (x ^ (y * 31)) + (x >> 3)


@triton.jit
def both(x, y):
    return x - 3, y * 2 + x


@triton.jit
def effect(pointer, wanted, value, at):
    if wanted > 0:
        tl.store(pointer + (wanted & 15).to(tl.int32) + at, value)
        if wanted % 2 == 0:
            return
    tl.store(pointer + 63, wanted)
'''

KERNEL = """

@triton.jit
def kernel_{number}(x_ptr, y_ptr, f_ptr, g_ptr, ints_ptr, floats_ptr, n):
    pid = tl.program_id(0)
    at = tl.arange(0, 16)
    ints_ptr += pid * 64
    floats_ptr += pid * 64
    v = tl.load(x_ptr + at)
    w = tl.load(y_ptr + at)
    f = tl.load(f_ptr + at)
    g = tl.load(g_ptr + at)
    a = tl.load(x_ptr + pid)
    b = n + pid
    s = tl.load(f_ptr + pid)
    t = tl.load(g_ptr + pid)
{body}
    tl.store(ints_ptr + at, v)
    tl.store(ints_ptr + 16 + at, w)
    tl.store(ints_ptr + 32, a)
    tl.store(ints_ptr + 33, b)
    tl.store(floats_ptr + at, f)
    tl.store(floats_ptr + 16 + at, g)
    tl.store(floats_ptr + 32, s)
    tl.store(floats_ptr + 33, t)


@case
def launch_{number}(make: Make):
    ints, floats = make.out(5, 64, dtype=torch.int64), make.out(5, 64, dtype=torch.float64)
    x, y, f, g = (make.values(16, getattr(torch, dtype)) for dtype in {dtypes})
    kernel_{number}[(5,)](x, y, f, g, ints, floats, 5)
    return [ints, floats]
"""


def programs(count: int, seed: int) -> str:
    """The text of a file with ``count`` kernels and their cases."""
    writer = Writer(seed)
    return HEAD + "".join(writer.kernel(number) for number in range(count))


class Writer:
    """Writes one kernel after another. Blocks: v, w whole, f, g floating; single values: a, b whole, s, t floating."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.names = 0

    def kernel(self, number: int) -> str:
        """A kernel and its case, for dtypes chosen at random."""
        choose = self.random.choice
        dtypes = (choose(INTS), choose(INTS), choose(FLOATS), choose(FLOATS))
        return KERNEL.format(number=number, body=self.statements(1, self.random.randint(5, 9)), dtypes=dtypes)

    def statements(self, indent: int, count: int) -> str:
        """``count`` statements, with what is nested in them."""
        space = "    " * indent
        return "\n".join(space + self.statement(indent).replace("\n", "\n" + space) for _ in range(count))

    def statement(self, indent: int) -> str:
        """A statement; branches and loops in the outer levels only."""
        simple = (self.assignment, self.assignment, self.assignment, self.store, self.load, self.call)
        nested = (self.branch, self.for_loop, self.while_loop) if indent < 4 else ()
        written: str = self.random.choice((*simple, *nested))()
        return written

    def assignment(self) -> str:
        """A variable keeps its dtype."""
        name = self.random.choice("vwfgabst")
        value = self.value(whole=name in "vwab", block=name in "vwfg")
        return f"{name} = ({value}).to({name}.dtype)"

    def store(self) -> str:
        """Under a mask, or of single values."""
        whole = self.random.random() < 0.5
        pointer = "ints_ptr" if whole else "floats_ptr"
        if self.random.random() < 0.3:
            return (
                f"tl.store({pointer} + ({self.value(True, False, 2)} & 63).to(tl.int32), {self.value(whole, False, 1)})"
            )
        start = self.random.randint(0, 48)
        return f"tl.store({pointer} + {start} + at, {self.value(whole, True, 1)}, mask={self.condition(True, 1)})"

    def load(self) -> str:
        """From places that were computed, of the inputs or of what was stored."""
        name = self.random.choice("vwfg")
        pointer = self.random.choice(("x_ptr", "ints_ptr") if name in "vw" else ("f_ptr", "g_ptr", "floats_ptr"))
        places = f"({self.value(True, True, 1)} & 15).to(tl.int32)"
        other = self.random.choice(("0", "7", "a" if name in "vw" else "s"))
        return f"{name} = tl.load({pointer} + {places}, mask={self.condition(True, 1)}, other={other}).to({name}.dtype)"

    def call(self) -> str:
        """Of a function with two results, or of one that stores and may return early."""
        if self.random.random() < 0.5:
            return f"effect(ints_ptr, {self.value(True, False, 1)}, {self.value(True, True, 1)}, at)"
        self.names += 1
        p, q = self.random.choice(("ab", "vw"))
        one, two = (f"{name}_{self.names}" for name in (p, q))
        values = f"{self.value(True, p == 'v', 1)}, {self.value(True, p == 'v', 1)}"
        return f"{one}, {two} = both({values})\n{p}, {q} = {two}.to({p}.dtype), {one}.to({q}.dtype)"

    def branch(self) -> str:
        """if, and sometimes elif and else."""
        text = f"if {self.test()}:\n{self.statements(1, self.random.randint(1, 3))}"
        if self.random.random() < 0.3:
            text += f"\nelif {self.test()}:\n{self.statements(1, 1)}"
        return text if self.random.random() < 0.5 else f"{text}\nelse:\n{self.statements(1, self.random.randint(1, 2))}"

    def for_loop(self) -> str:
        """To an end that may differ between programs, or unrolled."""
        self.names += 1
        stop = f"({self.value(True, False, 2)} & 3).to(tl.int32)"
        turns = self.random.choice((f"range({stop})", f"range(pid % 2, {stop})", "tl.static_range(2)"))
        return f"for i_{self.names} in {turns}:\n{self.statements(1, self.random.randint(1, 2))}"

    def while_loop(self) -> str:
        """At most four turns."""
        self.names += 1
        name = f"j_{self.names}"
        body = self.statements(1, self.random.randint(1, 2))
        return f"{name} = pid % 2\nwhile {name} < 4 and {self.condition(False, 1)}:\n{body}\n    {name} += 1"

    def test(self) -> str:
        """A condition of one value; and, or, not are for these."""
        first, second = self.condition(False), self.condition(False, 1)
        return self.random.choice((first, f"not {first}", f"{first} and {second}", f"{first} or {second}"))

    def condition(self, block: bool, depth: int = 0) -> str:
        """A comparison of any two dtypes."""
        left, right = (self.value(self.random.random() < 0.5, block, depth + 1) for _ in "lr")
        return f"({left} {self.random.choice(COMPARISONS)} {right})"

    def value(self, whole: bool, block: bool, depth: int = 0) -> str:
        """An expression: whole numbers of any dtype, or floating; a block, or a single value."""
        if depth > 2 or self.random.random() < 0.3:
            names = ("v w at" if block else "a b pid") if whole else ("f g" if block else "s t")
            return self.random.choice(names.split())
        left = self.value(whole, block, depth + 1)
        right = self.value(whole, block and self.random.random() < 0.7, depth + 1)
        return (self.whole if whole else self.floating)(left, right, block, depth)

    def whole(self, left: str, right: str, block: bool, depth: int) -> str:
        """Of whole numbers; sums are in int32, whose order does not matter."""
        forms = [f"({left} {op} {right})" for op in "+-*&|^"]
        forms += [
            f"({left} {self.random.choice('+-*&|^')} {self.random.randint(0, 100)})",
            f"(~{left})",
            f"({left} >> 1)",
        ]
        forms += [f"tl.minimum({left}, {right})", f"tl.maximum({left}, {right})", f"mixed({left}, {right})"]
        forms += [f"tl.where({self.condition(block, depth + 1)}, {left}, {right})"]
        forms += [f"({left}).to(tl.{self.random.choice(INTS)})", f"{self.condition(block, depth + 1)}.to(tl.int32)"]
        forms += [f"(({left}).to(tl.int32) {op} (({right}).to(tl.int32) % 7 + 8))" for op in ("//", "%")]
        inner = f"({self.value(True, True, depth + 1)}).to(tl.int32)"
        forms.append(
            f"tl.cumsum({inner}, 0)" if block else f"tl.{self.random.choice(('sum', 'max', 'min'))}({inner}, axis=0)"
        )
        return self.random.choice(forms)

    def floating(self, left: str, right: str, block: bool, depth: int) -> str:
        """Of floating numbers, with whole ones and with Python's; what has one answer to the last bit.

        Which of 0 and -0 is the lesser is open: 0 is added.
        """
        whole = self.value(True, block, depth + 1)
        forms = [f"({left} {op} {right})" for op in "+-*/"] + [f"({left} {op} {whole})" for op in "+*"]
        forms += [f"({whole} - {left})", f"(-{left})", f"tl.abs({left})", f"tl.floor(({left}).to(tl.float32))"]
        forms += [f"({left} {self.random.choice('+-*/')} {self.random.choice(('0.1', '1.5', '3', '1e-3'))})"]
        forms += [f"(tl.{name}imum({left}, {right}) + 0)" for name in ("min", "max")]
        forms += [f"tl.where({self.condition(block, depth + 1)}, {left}, {right})"]
        forms += [f"({left}).to(tl.{self.random.choice(FLOATS)})"]
        return self.random.choice(forms)
