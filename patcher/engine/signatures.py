"""Parameter lists as text, and whether two of them have the same shape."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection
from functools import cache

_ANY_DEFAULT = None
"""What stands for a default: only its presence is compared."""


@cache
def parse_signature(text: str) -> inspect.Signature:
    """A parameter list written as ``"(a, b=None, *args, key=1, **rest)"``; of defaults only the presence is kept."""
    function = ast.parse(f"def f{text}: pass").body[0]
    if not isinstance(function, ast.FunctionDef):
        raise SyntaxError(f"{text!r} is no parameter list")
    arguments, kind = function.args, inspect.Parameter
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    parameters = [
        kind(
            argument.arg,
            kind.POSITIONAL_ONLY if index < len(arguments.posonlyargs) else kind.POSITIONAL_OR_KEYWORD,
            default=kind.empty if index < required else _ANY_DEFAULT,
        )
        for index, argument in enumerate(positional)
    ]
    if arguments.vararg:
        parameters.append(kind(arguments.vararg.arg, kind.VAR_POSITIONAL))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        value = kind.empty if default is None else _ANY_DEFAULT
        parameters.append(kind(argument.arg, kind.KEYWORD_ONLY, default=value))
    if arguments.kwarg:
        parameters.append(kind(arguments.kwarg.arg, kind.VAR_KEYWORD))
    return inspect.Signature(parameters)


def without(signature: inspect.Signature, names: Collection[str]) -> inspect.Signature:
    """The signature less some of its parameters."""
    return signature.replace(parameters=[p for p in signature.parameters.values() if p.name not in names])


def same_shape(one: inspect.Signature, other: inspect.Signature) -> bool:
    """Whether names, order, kinds and the presence of defaults agree."""
    return _shape(one) == _shape(other)


def _shape(signature: inspect.Signature) -> list[tuple[str, str, bool]]:
    return [(p.name, p.kind.name, p.default is not p.empty) for p in signature.parameters.values()]
