"""Parameter lists as text mean what Python means by them."""

from __future__ import annotations

import inspect

import pytest

from patcher.engine.signatures import parse_signature, same_shape

LISTS = [
    "()",
    "(a)",
    "(a, b=1)",
    "(a, /, b, c=2)",
    "(a=1, /)",
    "(*args)",
    "(a, *args, key, other=3, **rest)",
    "(a, *, key=None)",
    "(a, *, key)",
    "(**rest)",
]


@pytest.mark.parametrize("text", LISTS)
def test_a_list_has_the_shape_of_the_function_that_is_written_with_it(text: str) -> None:
    """And of no other list here: names, order, kinds and presence of defaults tell them apart."""
    namespace: dict[str, object] = {}
    exec(f"def f{text}: pass", namespace)  # noqa: S102
    found = inspect.signature(namespace["f"])  # type: ignore[arg-type]
    assert [other for other in LISTS if same_shape(found, parse_signature(other))] == [text]


def test_what_is_no_parameter_list_is_an_error() -> None:
    """A slip in a data file is seen when the change is applied, and by the contract tests."""
    with pytest.raises(SyntaxError):
        parse_signature("a, b")
