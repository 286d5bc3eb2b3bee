"""Calls in a kernel: the language's functions, device functions, and Python where all is known at compile time."""

from __future__ import annotations

import ast
import inspect
from types import MethodType
from typing import Any

from patcher.tiles.classes import aggregate_replace, check_used, is_instance
from patcher.tiles.expressions import Expressions, Method
from patcher.tiles.language import Builtin, ConstexprFunction, Jitted, constexpr, plain
from patcher.tiles.library import FUNCTIONS
from patcher.tiles.structures import Aggregate, flatten

ON_TENSORS = {min: "minimum", max: "maximum", abs: "abs", print: "device_print"}
"""What Python's functions mean for tensors."""

DEEPEST = 24
"""Device functions within one another; more is taken for a recursion, which the language does not have."""


class Calls(Expressions):
    """Reads calls. ``depth`` is that of the device functions around this one, ``unused`` a call that is a statement."""

    depth = 0
    unused: ast.expr | None = None

    def visit_Call(self, node: ast.Call) -> Any:
        function = self.visit(node.func)
        if node is self.unused:
            check_used(Builtin(function.name) if isinstance(function, Method) else function, ast.unparse(node.func))
        args = self.several(node.args)
        kwargs: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.visit(keyword.value)
            kwargs |= {keyword.arg: value} if keyword.arg else value
        self.builder.line = self.source.place(node)
        return self.call(function, args, kwargs)

    def call(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """What the kernel gets for ``function(*args, **kwargs)``. Raises TypeError where it cannot be called."""
        if isinstance(function, Method):
            function, args = Builtin(function.name), [function.value, *args]
        if isinstance(function, MethodType) and isinstance(function.__self__, Aggregate):
            function, args = function.__func__, [function.__self__, *args]
        if isinstance(function, Builtin):
            return self.builtin(function.name, args, kwargs)
        if isinstance(function, Jitted):
            return self.inline(function, args, kwargs)
        if function is constexpr:
            return plain(args[0])
        if function is isinstance:
            return is_instance(*args)
        if function in (getattr, hasattr) and flatten(args[0]):
            return self.reflect(function, *args)
        dynamic = bool(flatten((*args, *kwargs.values())))
        if dynamic and function in ON_TENSORS:
            return self.on_tensors(ON_TENSORS[function], args)
        if _takes_semantic(function):
            return plain(function(*args, **kwargs, _semantic=self.builder))
        if dynamic and not _takes_tensors(function, args):
            name = getattr(function, "__qualname__", repr(function))
            raise TypeError(f"{name} is no function of the kernel language and cannot take tensors")
        result = function(*args, **kwargs)
        return tuple(result) if isinstance(result, (list, zip, enumerate, reversed)) else plain(result)

    def builtin(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """One of the language's functions."""
        if name not in FUNCTIONS:
            raise TypeError(f"triton.language.{name} cannot be used here")
        implementation = FUNCTIONS[name]
        try:
            inspect.signature(implementation).bind(self.builder, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"triton.language.{name}: {error}") from error
        return implementation(self.builder, *args, **kwargs)

    def on_tensors(self, name: str, args: list[Any]) -> Any:
        """``min``, ``max``, ``abs`` or ``print`` of tensors."""
        if name not in ("minimum", "maximum"):
            return self.builtin(name, args, {})
        result = args[0]
        for other in args[1:]:
            result = self.builtin(name, [result, other], {})
        return result

    def reflect(self, function: Any, owner: Any, name: str, *default: Any) -> Any:
        """``getattr`` and ``hasattr`` of a tensor."""
        try:
            found = self.attribute(owner, name)
        except AttributeError:
            if function is hasattr:
                return False
            if default:
                return default[0]
            raise
        return True if function is hasattr else found

    def inline(self, function: Jitted, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A device function's body in place of its call."""
        if self.depth >= DEEPEST:
            raise TypeError(f"{function.fn.__qualname__} calls itself, or {DEEPEST} functions call one another")
        bound = inspect.signature(function.fn).bind(*args, **kwargs)
        bound.apply_defaults()
        names = {name: plain(value) for name, value in bound.arguments.items()}
        return self.enter(function, names)

    def enter(self, function: Jitted, names: dict[str, Any]) -> Any:
        """Reads the body of a device function; defined where statements are."""
        raise NotImplementedError


def _takes_semantic(function: Any) -> bool:
    """Whether it is a Python function, or an aggregate with a constructor, that calls the language's functions."""
    if isinstance(function, type):
        return issubclass(function, Aggregate) and _takes_semantic(function.__init__)
    code = getattr(function, "__code__", None)
    return code is not None and "_semantic" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _takes_tensors(function: Any, args: list[Any]) -> bool:
    """Whether Python may call it with tensors, as it does nothing but to hand them on."""
    if isinstance(function, ConstexprFunction):  # a method of an aggregate
        return not flatten(tuple(arg for arg in args if not isinstance(arg, Aggregate)))
    if isinstance(function, type):
        return issubclass(function, (tuple, list, zip, enumerate, reversed, Aggregate))
    return function in (len, aggregate_replace) or isinstance(function, staticmethod)
