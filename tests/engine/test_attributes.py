"""Attributes as they are stored."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import pytest

from patcher.engine import attributes
from patcher.engine.attributes import MISSING


class Base:
    @staticmethod
    def static(x: int) -> int:
        return x

    @classmethod
    def of_class(cls) -> type:
        return cls

    @property
    def size(self) -> int:
        return self._size

    @size.setter
    def size(self, value: int) -> None:
        self._size = value


class Child(Base):
    pass


def test_descriptors_are_looked_up_unbound_and_inherited() -> None:
    """`own` sees the class itself only; a module's class counts as its attribute."""
    assert attributes.lookup(Child, "static") is vars(Base)["static"]
    assert attributes.lookup(Child, "size") is Base.size
    assert attributes.lookup(Child, "gone") is attributes.own(Child, "static") is MISSING
    assert attributes.own(Base, "static") is vars(Base)["static"]
    module = ModuleType("m")
    assert attributes.own(module, "__class__") is ModuleType


def test_what_every_class_has_of_object_is_not_there() -> None:
    """A release in which a class has lost its ``__new__`` answers with object's; a module's class is there."""

    class WithNew:
        def __new__(cls) -> WithNew:
            return super().__new__(cls)

    assert attributes.lookup(Child, "__new__") is attributes.lookup(Child, "__init__") is MISSING
    assert attributes.lookup(type("Derived", (WithNew,), {}), "__new__") is vars(WithNew)["__new__"]
    assert attributes.lookup(ModuleType("m"), "__class__") is not MISSING


def test_what_a_module_makes_up_is_found() -> None:
    """A lazy module answers through ``__getattr__``, as transformers' do."""
    module: Any = ModuleType("lazy")
    module.__getattr__ = lambda name: {"there": 1}[name] if name == "there" else _raise(AttributeError(name))
    assert attributes.lookup(module, "there") == 1 and attributes.lookup(module, "gone") is MISSING


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("name", ["static", "of_class", "size"])
def test_a_replacement_takes_the_form_of_the_original(name: str) -> None:
    """Static methods, class methods and properties, whose setter is kept; the function within is the replacement."""

    def replacement(*args: Any) -> str:
        return "replaced"

    there = vars(Base)[name]
    assert attributes.is_wrapped(there) and attributes.function_of(there) is not there
    formed = attributes.in_the_form_of(there, replacement)
    assert type(formed) is type(there) and attributes.function_of(formed) is replacement
    assert attributes.in_the_form_of(there, formed) is formed
    assert attributes.in_the_form_of(len, replacement) is replacement and not attributes.is_wrapped(len)
    if name == "size":
        assert formed.fset is Base.size.fset


def test_the_cell_of_a_wrapper_is_found_only_where_it_wraps() -> None:
    """`functools.wraps` tells; an empty cell and a closure over the same value without ``wraps`` are left alone."""

    def inner() -> int:
        return 1

    @functools.wraps(inner)
    def wrapper() -> int:
        return inner()

    def other() -> int:
        return inner()

    (cell,) = attributes.cells_of_wrapper(wrapper, inner)
    assert cell.cell_contents is inner
    assert attributes.cells_of_wrapper(other, inner) == attributes.cells_of_wrapper(wrapper, other) == []
    assert attributes.cells_of_wrapper(len, inner) == []

    @functools.wraps(inner)
    def early() -> object:
        return inner() if later is None else later

    assert len(attributes.cells_of_wrapper(early, inner)) == 1
    later = None


def test_the_package_that_defines_a_function() -> None:
    assert attributes.defining_package(vars(Base)["of_class"]) == "tests"
    assert attributes.defining_package(functools.wraps) == "functools" and attributes.defining_package(3) == ""
