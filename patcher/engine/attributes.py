"""Attributes as they are stored: static methods, class methods and properties unbound."""

from __future__ import annotations

import inspect
from types import CellType, FunctionType
from typing import Any

MISSING = object()
"""What stands for an attribute that is not there."""


def lookup(holder: Any, name: str) -> Any:
    """What ``holder`` or its bases have under ``name``, descriptors as they are; `MISSING` if nothing.

    What every class has of ``object``, such as ``__new__``, is no class's own.
    """
    there = inspect.getattr_static(holder, name, MISSING)
    if isinstance(holder, type) and there is vars(object).get(name):
        return MISSING
    return getattr(holder, name, MISSING) if there is MISSING else there


def own(holder: Any, name: str) -> Any:
    """What ``holder`` itself has under ``name``; `MISSING` if nothing. A module's class can be set, too."""
    return type(holder) if name == "__class__" else vars(holder).get(name, MISSING)


def is_wrapped(value: Any) -> bool:
    """Whether a function stands in a class as static method, class method or property."""
    return isinstance(value, (staticmethod, classmethod, property))


def function_of(value: Any) -> Any:
    """The function within a static method, class method or property; every other value as it is."""
    if isinstance(value, property):
        return value.fget
    return value.__func__ if isinstance(value, (staticmethod, classmethod)) else value


def in_the_form_of(there: Any, replacement: Any) -> Any:
    """The replacement as a static method, class method or property (setter kept) where the original is one."""
    if is_wrapped(replacement) or not is_wrapped(there):
        return replacement
    return there.getter(replacement) if isinstance(there, property) else type(there)(replacement)


def cells_of_wrapper(there: Any, value: Any) -> list[CellType]:
    """Where a wrapper (`functools.wraps`) of ``value`` holds it in its closure; none where ``there`` is no such one."""
    if not isinstance(there, FunctionType) or getattr(there, "__wrapped__", MISSING) is not value:
        return []
    return [cell for cell in there.__closure__ or () if _content(cell) is value]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was put in yet
        return MISSING


def defining_package(value: Any) -> str:
    """The top-level package that defines a function, a class, or what stands in for a C function; "" for others."""
    function = function_of(value)
    module = getattr(function, "__module__", None)
    if type(function) is not getattr(function, "__class__", None):  # says that it is torch's: ask what it is
        module = type(function).__module__
    return module.partition(".")[0] if isinstance(module, str) else ""
