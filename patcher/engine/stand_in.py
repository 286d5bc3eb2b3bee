"""A Python function in the place of a C function or method, which its library and its users take for the library's own.

Tables of torch's that hold the original (lazy parameters, `torch.overrides`, device contexts, Dynamo) are asked with
ours, and tables that were made with ours are asked with the original: the two are equal and have one hash. Name,
documentation, type as `isinstance` sees it and every other attribute are the original's. Only ``is`` and ``type()``
tell them apart.

The ledger makes one of every replacement of a C function, so that a replacement is a plain function. A call costs one
Python function more, and of a method one bound object more (benchmarks/bench_torch_calls.py).
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, MethodType
from typing import Any


class StandIn:
    """Stands where ``replaced`` stood; `standing_in` makes it call ``function``.

    Args:
        target: where it stands, e.g. ``"torch:tensor"``: what a pickle of it names, so that a process without the patch
            loads the library's own.
        replaced: the library's C function.
        function: takes what the library's takes, as ``*args, **kwargs`` where it goes on to the library's parser.
    """

    def __init__(self, target: str, replaced: Any, function: FunctionType) -> None:
        self._target = target
        self._replaced = replaced
        self.__doc__ = function.__doc__ = replaced.__doc__
        function.__name__, function.__qualname__ = replaced.__name__, replaced.__qualname__
        owner = getattr(replaced, "__objclass__", None)
        self.__module__ = replaced.__module__ if owner is None else owner.__module__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and not name.startswith("__"):  # not yet initialised
            raise AttributeError(name)
        return getattr(self._replaced, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._replaced)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._replaced

    def __hash__(self) -> int:
        return hash(self._replaced)

    def __repr__(self) -> str:
        return repr(self._replaced)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return pkgutil.resolve_name, (self._target,)


class MethodStandIn(StandIn):
    """A `StandIn` that stands in a class, and binds as a method does."""

    def __init__(self, target: str, replaced: Any, function: FunctionType) -> None:
        super().__init__(target, replaced, function)
        self._function = function

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self._function, instance)


def standing_in(target: str, there: Any, replacement: Any) -> Any:
    """The replacement as a stand-in where it is a function and takes the place of a C function; else as it is."""
    if not isinstance(replacement, FunctionType):
        return replacement
    if not isinstance(there, MethodDescriptorType | BuiltinFunctionType):
        return replacement
    kind = MethodStandIn if isinstance(there, MethodDescriptorType) else StandIn
    # A class of its own: Python finds what it calls in the class, and calls the function itself, not one more.
    own: type[StandIn] = type(kind.__name__, (kind,), {"__call__": staticmethod(replacement)})
    return own(target, there, replacement)


def replaced_by(function: Any) -> Any:
    """What a stand-in stands for; every other value as it is."""
    return function._replaced if issubclass(type(function), StandIn) else function
