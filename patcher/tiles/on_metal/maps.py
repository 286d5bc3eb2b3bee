"""The elementwise functions of a program as Metal expressions.

Results are those of the torch back end: integers wrap, a narrow float is computed in fp32 and rounded.
"""

from __future__ import annotations

from collections.abc import Sequence

from patcher.tiles.on_metal.names import NotOnMetal, Uses, is_narrow_float, type_name, wide, word
from patcher.tiles.types import DType, Scalar

COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
BITWISE = {"and": "&", "or": "|", "xor": "^"}
TESTS = ("isnan", "isinf", "isfinite", "signbit")

MATHEMATICS = (
    *("exp", "exp2", "exp10", "log", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh"),
    *("tanh", "asinh", "acosh", "atanh", "sqrt", "rsqrt", "pow", "atan2"),
)
"""Metal's functions of the same name, in their precise form."""

PLAIN = {
    "abs": "fabs",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "rint": "rint",
    "round": "round",
    "min": "fmin",
    "max": "fmax",
    "rem": "fmod",
    "copysign": "copysign",
    "fma": "fma",
}
"""Exact functions, and Metal's names for them."""

OF_TORCH = {"erf": "erf", "erfinv": "erfinv", "lgamma": "log_gamma", "log1p": "log1p", "expm1": "expm1f"}
"""Functions of the headers that torch brings along."""

CHEAP = frozenset((*COMPARED, *BITWISE, "add", "sub", "mul", "not", "where", "min", "max", "shl", "shr"))
"""Functions of integers that are computed again rather than kept."""


def expression(fn: str, args: Sequence[str], scalars: Sequence[Scalar], uses: Uses) -> str:
    """``fn`` of operands, which are names or stand in brackets. Raises NotOnMetal for what there is not."""
    first = scalars[0]
    if fn == "where":
        return f"({args[0]} ? {args[1]} : {args[2]})"
    name = type_name(first)
    assert isinstance(first, DType)
    if fn in COMPARED:
        return f"({wide(args[0], first)} {COMPARED[fn]} {wide(args[1], first)})"
    if first.is_floating():
        operands = [wide(arg, first) for arg in args]
        text = _floating(fn, operands, uses)
        return f"{name}({text})" if is_narrow_float(first) and fn not in TESTS else text
    return _boolean(fn, args) if first.is_int1() else _integer(fn, args, first, uses)


def _floating(fn: str, args: list[str], uses: Uses) -> str:
    listed = ", ".join(args)
    if fn in OPERATORS:
        return f"({args[0]} {OPERATORS[fn]} {args[1]})"
    if fn == "neg":
        return f"(-{args[0]})"
    if fn in TESTS:
        return f"{fn}({listed})"
    if fn in MATHEMATICS:
        return f"precise::{fn}({listed})"
    if fn in PLAIN:
        return f"{PLAIN[fn]}({listed})"
    if fn in ("minnan", "maxnan"):
        x, y = args
        return f"(isnan({x}) || isnan({y}) ? NAN : f{fn[:3]}({x}, {y}))"
    if fn in OF_TORCH:
        uses(OF_TORCH[fn])
        return f"c10::metal::{OF_TORCH[fn]}({listed})"
    if fn == "hypot":
        uses("hypotenuse")
        return f"hypotenuse({listed})"
    raise NotOnMetal(f"the function {fn}")


def _boolean(fn: str, args: Sequence[str]) -> str:
    """int1 wraps at 2: a sum is an exclusive or, a product an and."""
    if fn == "not":
        return f"(!{args[0]})"
    operators = {"add": "!=", "sub": "!=", "xor": "!=", "mul": "&&", "and": "&&", "or": "||", "min": "&&", "max": "||"}
    if fn not in operators:
        raise NotOnMetal(f"the function {fn} of int1")
    return f"({args[0]} {operators[fn]} {args[1]})"


def _integer(fn: str, args: Sequence[str], dtype: DType, uses: Uses) -> str:
    name, unsigned = type_name(dtype), word(dtype)
    x, y = args[0], args[-1]
    if fn in ("add", "sub", "mul"):
        return f"{name}({unsigned}({x}) {OPERATORS[fn]} {unsigned}({y}))"
    if fn in BITWISE:
        return f"{name}({x} {BITWISE[fn]} {y})"
    if fn == "not":
        return f"{name}(~{x})"
    if fn in ("min", "max", "minnan", "maxnan"):
        return f"({x} {'<' if fn.startswith('min') else '>'} {y} ? {x} : {y})"
    if fn == "abs":
        return f"({x} < 0 ? {name}({unsigned}(0) - {unsigned}({x})) : {x})"
    if fn == "umulhi":
        return f"{name}(mulhi({unsigned}({x}), {unsigned}({y})))"
    calls = {"shl": f"shift_left<{name}, {unsigned}>", "shr": f"shift_right<{name}>"}
    calls |= {"idiv": f"quotient<{name}, {unsigned}>", "rem": f"rest<{name}>"}
    if fn not in calls:
        raise NotOnMetal(f"the function {fn} of {dtype}")
    uses(calls[fn].partition("<")[0])
    return f"{calls[fn]}({x}, {y})"
