"""A Python function in the place of a C function or method of torch's, which torch and its users take for torch's own.

Tables that hold torch's object (lazy parameters, `torch.overrides`, device contexts, Dynamo) are asked with ours, and
tables that were made with ours are asked with torch's: the two are equal and have one hash. Name, documentation, type
as `isinstance` sees it and every other attribute are torch's. Only ``is`` and ``type()`` tell them apart.

A call costs one Python function more, and of a method one bound object more (benchmarks/bench_torch_calls.py).
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from types import MethodType
from typing import Any


class StandIn:
    """Calls ``function`` where ``replaced`` was called.

    Args:
        target: where it stands, e.g. ``"torch:tensor"``: what a pickle of it names, so that a process without the patch
            loads torch's own.
        replaced: torch's function.
        function: takes what torch's takes, as ``*args, **kwargs`` where it goes on to torch's parser.
    """

    def __init__(self, target: str, replaced: Any, function: Callable[..., Any]) -> None:
        self._target = target
        self.replaced = replaced
        self._function = function
        self.__doc__ = function.__doc__ = replaced.__doc__
        function.__name__, function.__qualname__ = replaced.__name__, replaced.__qualname__
        owner = getattr(replaced, "__objclass__", None)
        self.__module__ = replaced.__module__ if owner is None else owner.__module__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "replaced" or (name.startswith("_") and not name.startswith("__")):  # not yet initialised
            raise AttributeError(name)
        return getattr(self.replaced, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.replaced)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self.replaced

    def __hash__(self) -> int:
        return hash(self.replaced)

    def __repr__(self) -> str:
        return repr(self.replaced)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return pkgutil.resolve_name, (self._target,)


class MethodStandIn(StandIn):
    """A `StandIn` that stands in a class, and binds as a method does."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self._function, instance)
