"""Expressions of a kernel: what is known at compile time is computed by Python, the rest becomes operations."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from patcher.errors import KernelNotSupported, compose
from patcher.tiles import types
from patcher.tiles.builder import Builder
from patcher.tiles.classes import member
from patcher.tiles.language import constexpr_type, plain, tuple_type
from patcher.tiles.library import METHODS
from patcher.tiles.library.shapes import expand_dims, trans
from patcher.tiles.program import Sequence, Value
from patcher.tiles.source import Source
from patcher.tiles.structures import Aggregate, BlockPointer, flatten, kind, rebuild, say
from patcher.tiles.types import Block, Pointer

Names: TypeAlias = "dict[str, Any]"

PYTHON: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}

ARITHMETIC = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv", ast.FloorDiv: "floordiv"}
ARITHMETIC |= {ast.Mod: "mod"}
BITS = {ast.LShift: "shl", ast.RShift: "shr", ast.BitAnd: "and", ast.BitOr: "or", ast.BitXor: "xor"}
COMPARISONS = {ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge"}
REFLECTED = {"eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}

UNFIT = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, NameError, AssertionError, RuntimeError)
"""What rules of types, shapes and names raise, and Python's own functions; it becomes an error with a place."""


class Method:
    """A method of a value, not yet called."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value


class Expressions:
    """Reads expressions in one function.

    Attributes:
        source: the function.
        builder: where operations go.
        names: the local names.
        kernel: the name of the kernel that everything is read for.
        constants: local names that are declared as ``tl.constexpr`` and not yet assigned: what they are assigned next
            stays a constant.
    """

    def __init__(self, source: Source, builder: Builder, names: Names, kernel: str) -> None:
        self.source, self.builder, self.names, self.kernel = source, builder, names, kernel
        self.constants: frozenset[str] = frozenset()

    def unsupported(self, node: ast.AST, why: str) -> KernelNotSupported:
        """The error for a construct that the language does not have, or that has no meaning here."""
        text = ast.unparse(node).splitlines()[0]
        return KernelNotSupported(
            compose(
                f"the Triton kernel {self.kernel} cannot run: {why}",
                target=f"{self.source.name} ({self.source.place(node)})",
                found=text,
                left="nothing was computed",
                run="choose an option that does not use this kernel, or report its name and this message",
            )
        )

    def visit(self, node: ast.AST) -> Any:
        """The value of an expression, or a statement's effect. Raises KernelNotSupported."""
        reader = getattr(self, f"visit_{type(node).__name__}", None)
        if reader is None:
            raise self.unsupported(node, f"{type(node).__name__} is no part of the kernel language")
        if isinstance(node, (ast.stmt, ast.Call)):
            self.builder.line = self.source.place(node)
        try:
            return reader(node)
        except KernelNotSupported:
            raise
        except UNFIT as error:
            raise self.unsupported(node, str(error)) from error

    # -- names and constants ---------------------------------------------------------------------------------------

    def visit_Constant(self, node: ast.Constant) -> Any:
        return node.value

    def visit_Name(self, node: ast.Name) -> Any:
        if node.id in self.names:
            return self.names[node.id]
        value = self.source.outer(node.id)
        if isinstance(value, (bool, int, float, str)) and "constexpr" not in str(
            self.source.names_of_module().get(node.id, "")
        ):
            raise TypeError(f"{node.id} is a variable of the module; kernels see only those that are tl.constexpr")
        return plain(value)

    def visit_Tuple(self, node: ast.Tuple | ast.List) -> tuple[Any, ...]:
        return tuple(self.several(node.elts))

    def visit_List(self, node: ast.List) -> tuple[Any, ...]:
        return self.visit_Tuple(node)

    def several(self, nodes: list[ast.expr]) -> list[Any]:
        """The values of expressions, ``*those`` among them."""
        values: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values += self.visit(node.value)
            else:
                values.append(self.visit(node))
        return values

    def visit_ListComp(self, node: ast.ListComp) -> tuple[Any, ...]:
        (loop,) = node.generators
        outer, found = dict(self.names), []
        for item in self.visit(loop.iter):
            self.assign(loop.target, item)
            if all(self.visit(test) for test in loop.ifs):
                found.append(self.visit(node.elt))
        self.names = outer
        return tuple(found)

    def assign(self, target: ast.expr, value: Any, as_tensor: bool = False) -> None:
        """Gives a name, or several, their values; ``as_tensor`` makes tensors of numbers for names of no constants."""
        if isinstance(target, ast.Name):
            kept = not as_tensor or target.id in self.constants
            self.names[target.id] = value if kept else self.materialised(value)
            if as_tensor:
                self.constants -= {target.id}
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = list(value)
            if len(parts) != len(target.elts):
                raise ValueError(f"{len(parts)} values for {len(target.elts)} names")
            for part, inner in zip(parts, target.elts, strict=True):
                self.assign(inner, part, as_tensor)
        else:
            raise self.unsupported(target, "only names can be assigned in a kernel")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> str:
        return "".join(str(self.visit(part)) for part in node.values)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> str:
        value = self.visit(node.value)
        form = self.visit(node.format_spec) if node.format_spec else ""
        return say(value) if isinstance(value, Value) else format(value, form)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Any:
        self.assign(node.target, self.visit(node.value), as_tensor=True)
        return self.names[node.target.id]

    def materialised(self, value: Any) -> Any:
        """What a name holds after ``name = value``: a number becomes a tensor, as in Triton."""
        if isinstance(value, (bool, int, float)):
            return self.builder.tensor(value)
        if isinstance(value, tuple):
            parts = [self.materialised(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        return value

    # -- operators -------------------------------------------------------------------------------------------------

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        return self.binary(type(node.op), self.visit(node.left), self.visit(node.right))

    def binary(self, op: type, left: Any, right: Any) -> Any:
        """``left op right``."""
        if isinstance(left, Aggregate) or isinstance(right, Aggregate):
            return self.overloaded(op, left, right)
        if not isinstance(left, Value) and not isinstance(right, Value):
            return PYTHON[op](left, right)
        if op in ARITHMETIC:
            return getattr(self.builder, ARITHMETIC[op])(left, right)
        if op in BITS:
            return self.builder.bits(BITS[op], left, right)
        raise TypeError(f"tensors have no operator {op.__name__}")

    def overloaded(self, op: type, left: Any, right: Any) -> Any:
        """``left op right`` of aggregates: what the left one's method makes of it, else the right one's reflected one.

        As in Python the right one comes first where its class is derived from the left one's.

        Raises:
            TypeError: neither has a method for it.
        """
        name = PYTHON[op].__name__.rstrip("_")
        ways = [(left, name, right), (right, REFLECTED.get(name, f"r{name}"), left)]
        if type(left) is not type(right) and isinstance(right, type(left)):
            ways.reverse()
        for owner, method, other in ways:
            result = self.method_of(owner, method, other)
            if result is not NotImplemented:
                return result
        raise TypeError(f"{say(left)} and {say(right)} have no operator {op.__name__}")

    def method_of(self, owner: Any, name: str, *others: Any) -> Any:
        """``owner.__name__(*others)``; NotImplemented if ``owner`` is no aggregate whose class has the method."""
        name = f"__{name}__"
        if not isinstance(owner, Aggregate) or getattr(type(owner), name, None) is getattr(object, name, None):
            return NotImplemented
        return self.call(member(owner, name), list(others), {})

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        operand = self.visit(node.operand)
        if isinstance(operand, Aggregate):
            result = self.method_of(operand, PYTHON[type(node.op)].__name__.rstrip("_"))
            if result is NotImplemented:
                raise TypeError(f"{say(operand)} has no operator {type(node.op).__name__}")
            return result
        if not isinstance(operand, Value):
            return PYTHON[type(node.op)](operand)
        if isinstance(node.op, ast.UAdd):
            return operand
        if isinstance(node.op, ast.Not):
            return self.builder.map("not", self.builder.truth(operand))
        return self.builder.neg(operand) if isinstance(node.op, ast.USub) else self.builder.invert(operand)

    def visit_Compare(self, node: ast.Compare) -> Any:
        left, results = self.visit(node.left), []
        for op, other in zip(node.ops, node.comparators, strict=True):
            right = self.visit(other)
            results.append(self.compare(type(op), left, right))
            left = right
        return self.logical("and", results) if len(results) > 1 else results[0]

    def compare(self, op: type, left: Any, right: Any) -> Any:
        """``left op right``; of a tensor and None, ``is`` has an answer at compile time."""
        if op in (ast.Is, ast.IsNot):
            return PYTHON[op](left, right)
        if isinstance(left, Aggregate) or isinstance(right, Aggregate):
            return self.overloaded(op, left, right)
        if not isinstance(left, Value) and not isinstance(right, Value):
            return PYTHON[op](left, right)
        if op not in COMPARISONS:
            raise TypeError(f"tensors have no operator {op.__name__}")
        return self.builder.compare(COMPARISONS[op], left, right)

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        stop = isinstance(node.op, ast.Or)
        values = []
        for part in node.values:
            values.append(self.visit(part))
            if not isinstance(values[-1], Value) and bool(values[-1]) is stop:
                return values[-1]
        return self.logical("or" if stop else "and", values)

    def logical(self, fn: str, values: list[Any]) -> Any:
        """``a and b and ...``; what is known decides at once if it can, and has no say otherwise."""
        for value in values:
            if not isinstance(value, Value) and bool(value) is (fn == "or"):
                return value
        result = None
        for value in (value for value in values if isinstance(value, Value)):
            test = self.builder.truth(value)
            result = test if result is None else self.builder.bits(fn, result, test)
        return values[-1] if result is None else result

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        test = self.visit(node.test)
        if not isinstance(test, Value):
            return self.visit(node.body if test else node.orelse)
        branches, found, declared = (Sequence(), Sequence()), [], self.constants
        for branch, expression in zip(branches, (node.body, node.orelse), strict=True):
            with self.builder.inside(branch):
                found.append(self.materialised(self.visit(expression)))
                branch.results = tuple(flatten(found[-1]))
        self.constants = declared
        if kind(found[0]) != kind(found[1]):
            raise TypeError(f"the expression is {say(found[0])} or {say(found[1])}, and must have one type")
        types = tuple(value.type for value in flatten(found[0]))
        return rebuild(found[0], iter(self.builder.operation("if", (self.condition(test),), types, branches)))

    def condition(self, test: Value) -> Value:
        """A scalar int1. Raises TypeError for a block of several elements."""
        if test.type.numel != 1:
            raise TypeError(f"a condition is one value, and this is {test.type}")
        return self.builder.truth(self.builder.reshape(test, ()))

    def call(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """What the kernel gets for ``function(*args, **kwargs)``; defined where calls are."""
        raise NotImplementedError

    # -- attributes and indices ------------------------------------------------------------------------------------

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        return self.attribute(self.visit(node.value), node.attr)

    def attribute(self, owner: Any, name: str) -> Any:
        """``owner.name``."""
        if isinstance(owner, BlockPointer):
            return _window_attribute(owner, name)
        if isinstance(owner, Aggregate) or (isinstance(owner, type) and issubclass(owner, Aggregate)):
            return member(owner, name)
        if name == "type" and isinstance(owner, (bool, int, float, str, tuple)):
            return _type_of_constant(owner)
        number = isinstance(owner, (bool, int, float))
        if number and name == "value":
            return owner
        if isinstance(owner, Value) or (number and name in (*METHODS, "dtype", "shape")):
            return self.tensor_attribute(owner, name)
        return plain(getattr(owner, name))

    def tensor_attribute(self, owner: Any, name: str) -> Any:
        """An attribute of a tensor, or of a number that stands for one."""
        kind_of = owner.type if isinstance(owner, Value) else types.type_of_number(owner)
        if name in METHODS:
            return Method(name, owner)
        if name == "T":
            return trans(self.builder, owner)
        found = {"dtype": kind_of.scalar, "type": kind_of, "shape": kind_of.shape, "numel": kind_of.numel}
        if name not in found:
            raise AttributeError(f"a tensor has no attribute {name}")
        return found[name]

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        owner, index = self.visit(node.value), self.visit(node.slice)
        if isinstance(owner, Aggregate):
            return self.call(member(owner, "__getitem__"), [index], {})
        if not isinstance(owner, Value):
            return owner[index]
        for axis, part in enumerate(index if isinstance(index, tuple) else (index,)):
            if part is None:
                owner = expand_dims(self.builder, owner, axis)
            elif part != slice(None):
                raise TypeError("unsupported tensor index: there are ':' and None alone; tl.gather takes elements out")
        return owner

    def visit_Slice(self, node: ast.Slice) -> slice:
        return slice(*(part and self.visit(part) for part in (node.lower, node.upper, node.step)))


def _type_of_constant(value: Any) -> Any:
    """``value.type`` of what is known at compile time, or of a tuple of whatever."""
    if not isinstance(value, tuple) or not flatten(value):
        return constexpr_type(value)
    parts = [part.type if isinstance(part, Value) else _type_of_constant(part) for part in value]
    return tuple_type(parts, getattr(value, "_fields", None))


def _window_attribute(window: BlockPointer, name: str) -> Any:
    if name in ("load", "store", "gather", "scatter") and window.checked:
        return Method(f"{name}_tensor_descriptor", window)
    if name in METHODS:
        return Method(name, window)
    element = window.base.scalar.element_ty  # type: ignore[union-attr]
    dtype = element if window.checked else Pointer(Block(element, window.block_shape))
    found = {"dtype": dtype, "type": dtype, "block_shape": window.block_shape}
    found |= {"shape": window.shape, "strides": window.strides}
    if name not in found:
        raise AttributeError(f"a block pointer has no attribute {name}")
    return found[name]
