"""Statements of a kernel: assignments, branches, loops and returns become structured operations."""

from __future__ import annotations

import ast
from typing import Any

from patcher.tiles import types
from patcher.tiles.builder import Builder
from patcher.tiles.calls import Calls
from patcher.tiles.expressions import Names
from patcher.tiles.language import Builtin, Jitted
from patcher.tiles.program import Sequence, Value
from patcher.tiles.source import Source, source_of
from patcher.tiles.structures import flatten, kind, rebuild, say

UNROLL_AT_MOST = 1 << 14
"""Turns of a ``static_range``."""


class Statements(Calls):
    """Reads a function's body.

    Attributes:
        inside: how many branches and loops are open whose course is known only at run time.
        loops: how many of them are loops.
        returned: what early returns gave.
    """

    def __init__(self, source: Source, builder: Builder, names: Names, kernel: str, depth: int = 0) -> None:
        super().__init__(source, builder, names, kernel)
        self.depth, self.inside, self.loops = depth, 0, 0
        self.returned: list[Any] = []
        self.result: Any = None
        builder.call = lambda function, *args: self.call(function, list(args), {})

    def body(self, statements: list[ast.stmt]) -> bool:
        """Reads statements in order, up to a return; gives whether it came to one."""
        return any(bool(self.visit(statement)) for statement in statements)

    # -- simple statements -----------------------------------------------------------------------------------------

    def visit_Pass(self, node: ast.Pass) -> None:
        pass

    def visit_Expr(self, node: ast.Expr) -> None:
        self.unused = node.value
        if not isinstance(node.value, ast.Constant):
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.visit(node.value)
        for target in node.targets:
            self.assign(target, value, as_tensor=True)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        constant = "constexpr" in ast.unparse(node.annotation)
        if node.value is None:
            name = {ast.unparse(node.target)}
            self.constants = self.constants | name if constant else self.constants - name
            return
        value = self.visit(node.value)
        if constant and isinstance(value, Value):
            raise TypeError("a tl.constexpr is known at compile time, and this is not")
        self.assign(node.target, value, as_tensor=not constant)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if not isinstance(node.target, ast.Name):
            raise self.unsupported(node, "only names can be assigned in a kernel")
        current = self.visit_Name(ast.copy_location(ast.Name(node.target.id, ast.Load()), node))
        self.assign(node.target, self.binary(type(node.op), current, self.visit(node.value)), as_tensor=True)

    def visit_Assert(self, node: ast.Assert) -> None:
        test = self.visit(node.test)
        message = self.visit(node.msg) if node.msg else ast.unparse(node.test)
        self.builtin("device_assert" if isinstance(test, Value) else "static_assert", [test, message], {})

    # -- functions -------------------------------------------------------------------------------------------------

    def visit_Return(self, node: ast.Return) -> bool:
        value = self.visit(node.value) if node.value else None
        if self.loops:
            raise self.unsupported(node, "return inside a loop is no part of the kernel language")
        if self.inside or self.returned:
            value = self.materialised(value)
            if self.returned and kind(value) != kind(self.returned[0]):
                raise TypeError(f"returns {say(value)} here and {say(self.returned[0])} before")
            self.returned.append(value)
            self.builder.operation("return", tuple(flatten(value)))
        self.result = value
        return True

    def enter(self, function: Jitted, names: dict[str, Any]) -> Any:
        """Reads a device function where it is called; one that returns early becomes a call of its own."""
        line = self.builder.line
        inner = Statements(source_of(function.fn), self.builder, names, self.kernel, self.depth + 1)
        with self.builder.inside(Sequence()) as sequence:
            ended = inner.body(inner.source.tree.body)
        self.builder.call = lambda called, *args: self.call(called, list(args), {})
        self.builder.line = line
        if not inner.returned:
            self.builder.sequence.operations += sequence.operations
            return inner.result
        template = inner.returned[0]
        if not ended and flatten(template):
            raise TypeError(f"{inner.source.name} returns a value on some ways only")
        sequence.results = None if ended else ()
        kinds = tuple(value.type for value in flatten(template))
        return rebuild(template, iter(self.builder.operation("call", (), kinds, (sequence,))))

    # -- branches --------------------------------------------------------------------------------------------------

    def visit_If(self, node: ast.If) -> bool:
        test = self.visit(node.test)
        if not isinstance(test, Value):
            return self.body(node.body if test else node.orelse)
        test = self.condition(test)
        before = dict(self.names)
        branches = [self.branch(node.body, before), self.branch(node.orelse, before)]
        sequences = tuple(sequence for sequence, _, _ in branches)
        going_on = [(sequence, names) for sequence, names, ended in branches if not ended]
        self.names = dict(before)
        if not going_on:
            self.builder.operation("if", (test,), (), sequences)
            return True
        merged = self.merge(before, going_on)
        for sequence, names in going_on:
            sequence.results = tuple(value for name in merged for value in flatten(names[name]))
        kinds = tuple(value.type for value in going_on[0][0].results or ())
        values = iter(self.builder.operation("if", (test,), kinds, sequences))
        for name in merged:
            self.names[name] = rebuild(going_on[0][1][name], values)
        return False

    def branch(self, statements: list[ast.stmt], before: Names) -> tuple[Sequence, Names, bool]:
        """Operations of one branch, the names at its end, and whether it ended with a return."""
        self.names, self.inside, declared = dict(before), self.inside + 1, self.constants
        with self.builder.inside(Sequence()) as sequence:
            ended = self.body(statements)
        self.inside, self.constants = self.inside - 1, declared
        if ended:
            sequence.results = None
        return sequence, self.names, ended

    def merge(self, before: Names, ways: list[tuple[Sequence, Names]]) -> list[str]:
        """The names whose values depend on the branch taken.

        Those that not every branch has, and constants that differ, are gone afterwards.
        """
        merged = []
        for name in ways[0][1]:
            found = [names.get(name, _MISSING) for _, names in ways]
            missing = any(value is _MISSING for value in found)
            if missing or all(_same(value, before.get(name, _MISSING)) for value in found):
                continue
            if any(isinstance(value, Value) for value in found):
                for sequence, names in ways:
                    with self.builder.inside(sequence):
                        names[name] = self.materialised(names[name])
                found = [names[name] for _, names in ways]
            if not any(map(flatten, found)) and len({kind(value) for value in found}) > 1:
                self.names.pop(name, None)
                continue
            if len({kind(value) for value in found}) > 1:
                raise TypeError(f"{name} is {' or '.join(map(say, found))} after this branch, and must have one type")
            merged.append(name)
        return merged

    # -- loops -----------------------------------------------------------------------------------------------------

    def visit_For(self, node: ast.For) -> bool:
        if node.orelse or not isinstance(node.iter, ast.Call) or not isinstance(node.target, ast.Name):
            raise self.unsupported(node, "a loop of a kernel is `for name in range(...)`, without else")
        function = self.visit(node.iter.func)
        name = function.name if isinstance(function, Builtin) else function
        if name not in ("range", "static_range", range):
            raise self.unsupported(node.iter, "a loop of a kernel goes over range, tl.range or tl.static_range")
        bounds = self.bounds(node.iter)
        if name == "static_range":
            return self.unroll(node, bounds)
        self.loop(node, bounds)
        return False

    def bounds(self, call: ast.Call) -> list[Any]:
        """Start, stop and step. Hints to the compiler (``num_stages`` ...) change nothing."""
        given = {keyword.arg: self.visit(keyword.value) for keyword in call.keywords}
        args = self.several(call.args)
        if len(args) == 1 and "arg2" not in given:
            args = [0, *args]
        start, stop, step, *_ = *args, *(given[key] for key in ("arg2", "step") if key in given), 1
        return [start, stop, step]

    def unroll(self, node: ast.For, bounds: list[Any]) -> bool:
        """``static_range``: the body once for each value, which is known."""
        if any(isinstance(bound, Value) for bound in bounds):
            raise TypeError("static_range takes what is known at compile time")
        assert isinstance(node.target, ast.Name)
        turns = range(*map(int, bounds))
        if len(turns) > UNROLL_AT_MOST:
            raise ValueError(f"static_range of {len(turns)} turns; {UNROLL_AT_MOST} are the most")
        for turn in turns:
            self.names[node.target.id] = turn
            if self.body(node.body):
                return True
        return False

    def loop(self, node: ast.For, bounds: list[Any]) -> None:
        """A loop whose bounds are known only at run time, or that stays a loop."""
        assert isinstance(node.target, ast.Name)
        down = not isinstance(bounds[2], Value) and bounds[2] < 0
        start, stop, step = (self.builder.tensor(bound) for bound in bounds)
        if any(value.shape or not value.number.is_int() for value in (start, stop, step)):
            raise TypeError("the bounds of a loop are integers")
        dtype = types.promote_integers(types.promote_integers(start.number, stop.number), step.number)
        limits = tuple(self.builder.cast(value, dtype) for value in (start, stop, step))
        carried, initial = self.carried(node.body, {node.target.id})
        index = Value(dtype)
        names, before = dict(self.names), dict(self.names)
        sequence, inner = Sequence(), self.parameters(carried, names)
        sequence.parameters = (index, *inner)
        names[node.target.id] = index
        self.turn(node.body, sequence, names, carried, before, frozenset({node.target.id}))
        kinds = tuple(value.type for value in initial)
        self.builder.line = self.source.place(node)
        self.after(before, carried, self.builder.operation("for", (*limits, *initial), kinds, (sequence,), down=down))

    def visit_While(self, node: ast.While) -> None:
        if node.orelse:
            raise self.unsupported(node, "a loop of a kernel has no else")
        carried, initial = self.carried(node.body, set())
        before, names = dict(self.names), dict(self.names)
        test = Sequence(tuple(self.parameters(carried, names)))
        self.names = dict(names)
        with self.builder.inside(test):
            condition = self.visit(node.test)
            if not isinstance(condition, Value) and condition:
                raise self.unsupported(node, "a loop that nothing ends")
            test.results = (self.condition(self.builder.tensor(condition)),)
        names = dict(before)
        sequence = Sequence(tuple(self.parameters(carried, names)))
        self.turn(node.body, sequence, names, carried, before)
        kinds = tuple(value.type for value in initial)
        self.builder.line = self.source.place(node)
        self.after(before, carried, self.builder.operation("while", tuple(initial), kinds, (test, sequence)))

    def carried(self, statements: list[ast.stmt], own: set[str]) -> tuple[list[str], list[Value]]:
        """Names that exist before a loop and are assigned in it, and their values there."""
        assigned = _assigned(statements) - own - _targets(statements)
        for name in (assigned - _constants(statements)) & set(self.names):
            self.names[name] = self.materialised(self.names[name])
        names = [name for name in self.names if name in assigned and flatten(self.names[name])]
        return names, [value for name in names for value in flatten(self.names[name])]

    def parameters(self, carried: list[str], names: Names) -> list[Value]:
        """Fresh values for the carried names, which ``names`` then hold."""
        fresh = []
        for name in carried:
            values = [Value(value.type) for value in flatten(names[name])]
            names[name] = rebuild(names[name], iter(values))
            fresh += values
        return fresh

    def turn(
        self,
        statements: list[ast.stmt],
        sequence: Sequence,
        names: Names,
        carried: list[str],
        before: Names,
        own: frozenset[str] = frozenset(),
    ) -> None:
        """Reads a loop's body and ends ``sequence`` with the carried names' new values; ``own`` is its index.

        As in Triton, which reads a body once to learn what it carries and then again, a name that was declared as a
        constant before the loop is none in it: the first reading uses the declaration up. After the loop it stands.
        """
        outside = self.constants
        self.inside, self.loops = self.inside + 1, self.loops + 1
        for _ in range(2):
            declared, self.names = self.constants, dict(names)
            sequence.operations.clear()
            with self.builder.inside(sequence):
                self.body(statements)
            for name in set(before) - _targets(statements) - own:
                if kind(self.names.get(name)) != kind(before[name]):
                    found, first = say(self.names.get(name)), say(before[name])
                    raise TypeError(f"{name} is {first} before this loop and {found} at the end of its body")
            if self.constants == declared:
                break
        self.inside, self.loops, self.constants = self.inside - 1, self.loops - 1, outside
        sequence.results = tuple(value for name in carried for value in flatten(self.names[name]))

    def after(self, before: Names, carried: list[str], results: tuple[Value, ...]) -> None:
        """The names after a loop: those before it, the carried ones with the loop's results."""
        values = iter(results)
        self.names = {**before, **{name: rebuild(before[name], values) for name in carried}}


_MISSING = object()


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    values = list(zip(flatten(a), flatten(b), strict=False))
    return bool(b is not _MISSING and kind(a) == kind(b) and all(x is y for x, y in values))


def _targets(statements: list[ast.stmt]) -> set[str]:
    """Names over which loops among the statements run; they mean nothing after them."""
    loops = (node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.For))
    return {ast.unparse(loop.target) for loop in loops}


def _assigned(statements: list[ast.stmt]) -> set[str]:
    """Names that statements assign."""
    nodes = (node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Name))
    return {node.id for node in nodes if isinstance(node.ctx, ast.Store)}


def _constants(statements: list[ast.stmt]) -> set[str]:
    """Names that statements declare as ``tl.constexpr``."""
    nodes = (node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.AnnAssign))
    return {ast.unparse(node.target) for node in nodes if "constexpr" in ast.unparse(node.annotation)}
