"""Classes in a kernel: what ``isinstance`` says of values, and ``@triton.aggregate``, classes of a kernel's own."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from patcher.tiles import types
from patcher.tiles.language import (
    ConstexprFunction,
    Jitted,
    block_type,
    constexpr,
    plain,
    pointer_type,
    tensor,
    tensor_descriptor,
)
from patcher.tiles.program import Value
from patcher.tiles.structures import Aggregate, BlockPointer

CLASSES: dict[Any, type] = {pointer_type: types.Pointer, block_type: types.Block}
"""What functions that make types are where a kernel asks for the class of a type."""


def is_instance(value: Any, classes: Any) -> bool:
    """``isinstance`` in a kernel, where a tensor is a value of the program and a constant is what it wraps."""
    classes = classes if isinstance(classes, tuple) else (classes,)
    classes = tuple(CLASSES.get(one, one) for one in classes)
    if isinstance(value, Value):
        return tensor in classes
    if isinstance(value, BlockPointer):
        return value.checked and tensor_descriptor in classes
    if constexpr in classes and isinstance(value, (bool, int, float, str, types.DType, type(None))):
        return True
    return isinstance(value, classes)


def aggregate(cls: type) -> type[Aggregate]:
    """Makes a class whose instances a kernel can make, call methods of, and hand on: ``@triton.aggregate``.

    Its annotations are its fields, after those of the aggregates that it inherits from; one of ``tl.constexpr`` is
    known at compile time. Without an ``__init__`` of its own the constructor takes the fields in order or by name.
    Outside of a kernel fields are constants alone. The constructor assigns all of them, and nothing else any.

    Raises:
        TypeError: it inherits from a class that is no aggregate.
    """
    annotations: dict[str, Any] = {}
    bases = [base for base in cls.__bases__ if base is not object]
    for base in reversed(bases):
        if not issubclass(base, Aggregate):
            raise TypeError(f"Aggregates can only inherit from other aggregates, but got {base}")
        annotations.update(base.__aggregate_fields__)
    hints = typing.get_type_hints(cls)
    annotations.update({name: hints[name] for name in inspect.get_annotations(cls)})
    kept = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
    filled = {} if "__init__" in vars(cls) else {"__init__": _fill}
    names = {"__aggregate_fields__": annotations, **kept, **filled}
    return type(cls.__name__, (cls,) if bases else (cls, _Fields), names)


class _Constructed(type):
    """Opens an instance's fields for its constructor, and for no longer."""

    def __call__(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
        instance: Any = object.__new__(cls)
        fields = vars(instance)
        fields[OPEN] = True
        instance.__init__(*args, **kwargs)
        del fields[OPEN]
        missing = [name for name in cls.__aggregate_fields__ if name not in fields]
        if missing:
            raise AttributeError(f"the constructor of {cls.__name__} leaves out {', '.join(missing)}")
        return instance


OPEN = "__open__"
"""Stands among the fields while the constructor runs."""


class _Fields(Aggregate, metaclass=_Constructed):
    """What instances hold."""

    def __setattr__(self, name: str, value: Any) -> None:
        owner = type(self)
        if name not in owner.__aggregate_fields__:
            raise AttributeError(f"{owner.__name__} has no attribute {name!r}")
        if OPEN not in vars(self):
            raise AttributeError(
                f"cannot assign to field {name!r} on immutable aggregate {owner.__name__}; tl.aggregate_replace makes "
                "a copy with another value"
            )
        wanted = owner.__aggregate_fields__[name]
        if not is_instance(value, wanted):
            raise TypeError(f"{name} of {owner.__name__} is a {wanted.__name__}, and gets {value!r}")
        vars(self)[name] = _constant(value)


def _fill(self: Aggregate, *args: Any, **kwargs: Any) -> None:
    """The constructor of an aggregate that has none of its own."""
    owner = type(self)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=getattr(owner, name, inspect._empty))
        for name in owner.__aggregate_fields__
    ]
    given = dict(zip(owner.__aggregate_fields__, args, strict=False))
    twice = given.keys() & kwargs.keys()
    unknown = kwargs.keys() - owner.__aggregate_fields__.keys()
    if len(args) > len(parameters) or twice or unknown:
        raise TypeError(f"{owner.__name__} takes {', '.join(owner.__aggregate_fields__)}")
    values = {**{p.name: p.default for p in parameters if p.default is not p.empty}, **given, **kwargs}
    for name in owner.__aggregate_fields__:
        if name not in values:
            raise TypeError(f"{owner.__name__} lacks its {name!r}")
        setattr(self, name, _constant(values[name]))


def _constant(value: Any) -> Any:
    """A field: whatever is no value of a program becomes a constant, within tuples too."""
    if isinstance(value, tuple):
        parts = map(_constant, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value if isinstance(value, (Value, BlockPointer, Aggregate, constexpr)) else constexpr(value)


def known(value: Any) -> Any:
    """A field as a kernel uses it: constants are what they wrap."""
    if isinstance(value, tuple):
        parts = map(known, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return plain(value)


def aggregate_replace(instance: Any, **changes: Any) -> Any:
    """A copy of an aggregate with other values of some fields: ``tl.aggregate_replace``.

    Raises:
        TypeError: it is none, or has no such field.
    """
    if not isinstance(instance, Aggregate):
        raise TypeError(f"aggregate_replace expects an aggregate instance, got {type(instance)}")
    owner = type(instance)
    for name in changes:
        if name not in owner.__aggregate_fields__:
            raise TypeError(f"{owner.__name__} has no field {name!r}")
    return owner(**{name: getattr(instance, name) for name in owner.__aggregate_fields__} | changes)


def member(owner: Any, name: str) -> Any:
    """``owner.name`` in a kernel, of an aggregate or a class of them: a field, or a function, bound where it has to be.

    Raises:
        AttributeError: there is none.
    """
    found = inspect.getattr_static(owner, name)
    if isinstance(found, staticmethod):
        return found.__func__ if isinstance(found.__func__, Jitted) else found
    if isinstance(owner, Aggregate) and isinstance(found, (Jitted, ConstexprFunction, FunctionType)):
        return MethodType(found, owner)  # type: ignore[arg-type]
    return known(found)


def must_use_result(function: Any, words: Any = True) -> Any:
    """A kernel that calls ``function`` and does nothing with the result is an error: ``@triton.must_use_result``.

    Given words instead of a function, gives a decorator whose error ends with them.
    """
    if isinstance(function, str):
        return lambda marked: must_use_result(marked, function)
    function._must_use_result = words
    return function


def check_used(function: Callable[..., Any], called: str) -> None:
    """Raises TypeError for a function whose result must be used; it was ``called`` and is not."""
    mark = getattr(function, "_must_use_result", False)
    if mark:
        words = f" {mark}" if isinstance(mark, str) else ""
        raise TypeError(f"The result of {called} is not being used.{words}")
