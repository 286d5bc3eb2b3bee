"""A kernel's source: its syntax tree, where it stands, and what its names mean outside of it."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from patcher.errors import KernelNotSupported, compose


@dataclass(frozen=True)
class Source:
    """One function in the kernel language.

    Attributes:
        fn: the Python function.
        tree: its definition; lines are counted from 1 at its first line.
        file, first_line: where that is.
    """

    fn: Callable[..., Any]
    tree: ast.FunctionDef
    file: str
    first_line: int

    @property
    def name(self) -> str:
        """The function's, with its module."""
        return f"{self.fn.__module__}.{self.fn.__qualname__}"

    def place(self, node: ast.AST) -> str:
        """``file:line`` of ``node``."""
        return f"{self.file}:{self.first_line + getattr(node, 'lineno', 1) - 1}"

    def outer(self, name: str) -> Any:
        """What ``name`` means in the enclosing functions, the module or Python. Raises NameError."""
        code = self.fn.__code__
        if name in code.co_freevars and self.fn.__closure__:
            return self.fn.__closure__[code.co_freevars.index(name)].cell_contents
        if name in self.fn.__globals__:
            return self.fn.__globals__[name]
        if hasattr(builtins, name):
            return getattr(builtins, name)
        raise NameError(f"the name {name} is not defined, or not on every way to this line")

    def names_of_module(self) -> dict[str, Any]:
        """The annotations of the module's own names."""
        found: dict[str, Any] = self.fn.__globals__.get("__annotations__", {})
        return found


@lru_cache(maxsize=4096)
def source_of(fn: Callable[..., Any]) -> Source:
    """The source of ``fn``.

    Raises:
        KernelNotSupported: it cannot be read.
    """
    try:
        lines, first = inspect.getsourcelines(fn)
        tree, shift = _definition(lines)
    except (OSError, TypeError, SyntaxError) as error:
        raise KernelNotSupported(
            compose(
                f"the source of the Triton kernel {fn.__qualname__} cannot be read, so it cannot run",
                target=f"{fn.__module__}.{fn.__qualname__}",
                found=str(error),
                left="nothing was computed",
                run="define the kernel in a file, with def",
            )
        ) from error
    return Source(fn, tree, inspect.getsourcefile(fn) or fn.__code__.co_filename, first - shift)


def _definition(lines: list[str]) -> tuple[ast.FunctionDef, int]:
    """The syntax tree of a function's lines, and how many lines stand before them in what was parsed.

    Indented ones get a block around them: lines within them, of strings or comments, may be indented less.
    """
    indented = lines[0][:1].isspace()
    (node,) = ast.parse("".join(["if True:\n", *lines] if indented else lines)).body
    if isinstance(node, ast.If):
        (node,) = node.body
    if not isinstance(node, ast.FunctionDef):
        raise TypeError("it is no function that is defined with def")
    return node, int(indented)
