"""Branches, loops and calls. Conditions are the same in all threads of a group, so that barriers may stand inside."""

from __future__ import annotations

from patcher.tiles.on_metal.core import Access
from patcher.tiles.on_metal.forms import Held, Uniform
from patcher.tiles.on_metal.memory import Memory
from patcher.tiles.on_metal.names import NotOnMetal, type_name, word
from patcher.tiles.program import Operation, Sequence, Value, operations

KINDS = {"load": "r", "store": "w", "atomic": "a", "cas": "a"}


class Control(Memory):
    """Operations that hold blocks.

    Attributes:
        frames: the calls that are open.
        returned: what was pending where the innermost of them returned.
    """

    frames: list[Operation]
    returned: tuple[Access, ...] = ()

    def sequence(self, sequence: Sequence) -> None:
        """Writes operations in order. Raises NotOnMetal."""
        for operation in sequence.operations:
            perform = getattr(self, f"do_{operation.kind}", None)
            if perform is None:
                raise NotOnMetal(f"the operation {operation.kind}")
            perform(operation)
            self.numbering.note(operation)

    # -- variables -------------------------------------------------------------------------------------------------

    def variable(self, value: Value) -> None:
        """A place for a value that is assigned in several places."""
        if value.shape:
            registers = self.place_for(value, self.canonical(value))
            self.variables.add(registers.name)
            self.forms[value] = registers
            return
        name = self.fresh("w")
        self.line(f"{self.type_of(value)} {name};")
        self.forms[value] = Uniform(name)

    def assign(self, targets: tuple[Value, ...], values: tuple[Value, ...]) -> None:
        """Gives variables their values, all at once: none of the values sees another's assignment."""
        pairs = [(a, b) for a, b in zip(targets, values, strict=True) if self.forms[a] is not self.forms[b]]
        taken = [self.kept(b, a) for a, b in pairs]
        for (target, _), value in zip(pairs, taken, strict=True):
            self.copy(target, value)

    def kept(self, value: Value, target: Value) -> Value:
        """A value that assignments to variables do not change."""
        copy = Value(value.type)
        self.aliases.roots[copy], self.origins.roots[copy] = self.aliases.of(target), self.origins.of(value)
        if not value.shape:
            self.put(copy, self.scalar(value))
            return copy
        form = self.forms[value]
        if isinstance(form, Held) and form.name not in self.variables:
            self.forms[copy] = form
        else:
            layout = self.canonical(value)
            self.forms[copy] = self.compute(copy, [form], [value.scalar], layout, lambda texts: texts[0])
        return copy

    def copy(self, target: Value, value: Value) -> None:
        """One assignment."""
        place = self.forms[target]
        if isinstance(place, Uniform):
            self.line(f"{place.text} = {self.scalar(value)};")
            return
        assert isinstance(place, Held)
        form = self.settled(self.forms[value], value.scalar, place.layout)
        with self.each(place.layout) as loop:
            self.line(f"{place.at(loop, place.layout)} = {form.at(loop, place.layout)};")

    # -- branches --------------------------------------------------------------------------------------------------

    def do_if(self, op: Operation) -> None:
        for result in op.results:
            self.variable(result)
        pending, after, shared = list(self.pending), [], False
        begun = self.shared
        heads = (f"if ({self.scalar(op.operands[0])})", "else")
        for head, block in zip(heads, op.blocks, strict=True):
            self.pending, self.shared = list(pending), begun
            with self.braces(head):
                self.sequence(block)
                if block.results:
                    self.assign(op.results, block.results)
            after += [access for access in self.pending if access not in after]
            shared = shared or self.shared
        self.pending, self.shared = after, shared

    # -- loops -----------------------------------------------------------------------------------------------------

    def do_for(self, op: Operation) -> None:
        start, stop, step, *initial = op.operands
        (body,) = op.blocks
        kind, unsigned = type_name(start.scalar), word(start.number)
        bounds = [self.scalar(bound) for bound in (start, stop, step)]
        self.uses("turns")
        index, count, by = self.fresh("i"), self.fresh("n"), self.fresh("d")
        self.carry(op, body.parameters[1:], tuple(initial))
        self.line(f"{kind} {index} = {bounds[0]};")
        self.line(f"const {kind} {by} = {bounds[2]};")
        turns = f"turns<{kind}, {unsigned}>({index}, {bounds[1]}, {by})"
        before = list(self.pending)  # there may be no turn
        with self.braces(f"for ({unsigned} {count} = {turns}; {count} > 0; --{count})"):
            self.again(body)
            self.forms[body.parameters[0]] = Uniform(index)
            self.sequence(body)
            self.assign(body.parameters[1:], body.results or ())
            self.line(f"{index} = {kind}({unsigned}({index}) + {unsigned}({by}));")
        self.pending += before
        self.after(op, body.parameters[1:])

    def do_while(self, op: Operation) -> None:
        test, body = op.blocks
        self.carry(op, body.parameters, op.operands)
        with self.braces("while (true)"):
            self.again(test, body)
            for own, shared in zip(test.parameters, body.parameters, strict=True):
                self.forms[own] = self.forms[shared]
            self.sequence(test)
            assert test.results
            self.line(f"if (!{self.scalar(test.results[0])}) break;")
            left = list(self.pending)
            self.sequence(body)
            self.assign(body.parameters, body.results or ())
        self.pending = left
        self.after(op, body.parameters)

    def carry(self, op: Operation, parameters: tuple[Value, ...], initial: tuple[Value, ...]) -> None:
        """Variables for what a loop hands on, with their first values."""
        for parameter, value in zip(parameters, initial, strict=True):
            self.variable(parameter)
            self.copy(parameter, value)

    def again(self, *bodies: Sequence) -> None:
        """What the turn before may have left open: its accesses to memory, whose pointers were others then."""
        self.shared = True
        found = [op for body in bodies for op in operations(body) if op.kind in KINDS]
        self.pending += [Access(KINDS[op.kind], self.aliases.of(op.operands[0])) for op in found]

    def after(self, op: Operation, parameters: tuple[Value, ...]) -> None:
        """The loop's results are what its variables hold in the end."""
        self.pending = list(dict.fromkeys(Access(access.kind, access.roots) for access in self.pending))
        self.shared = True
        for result, parameter in zip(op.results, parameters, strict=True):
            self.forms[result] = self.forms[parameter]

    # -- functions -------------------------------------------------------------------------------------------------

    def do_call(self, op: Operation) -> None:
        for result in op.results:
            self.variable(result)
        self.frames.append(op)
        outer, self.returned = self.returned, ()
        with self.braces("do", "} while (false);"):
            self.sequence(op.blocks[0])
        self.frames.pop()
        self.pending = list(dict.fromkeys((*self.pending, *self.returned)))
        self.returned, self.shared = outer, True

    def do_return(self, op: Operation) -> None:
        if not self.frames:
            self.line("return;")
            return
        self.assign(self.frames[-1].results, op.operands)
        self.returned += tuple(self.pending)
        self.line("break;")
