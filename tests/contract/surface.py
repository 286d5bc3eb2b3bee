"""Which names of a package do the installed libraries read? Derived from their sources, without importing them."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

SHORT_NAMES = {"triton": "triton", "tl": "triton.language"}
"""Names under which modules hand Triton on to each other: ``from .triton_compat import tl``."""

KERNEL_DECORATORS = {"jit", "triton_jit"}


def names_read(package: str, readers: tuple[str, ...], skip: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Dotted names of ``package`` that the packages in ``readers`` read, each with the places (``file:line``).

    Bodies of Triton kernels, ``if TYPE_CHECKING`` and the files whose path contains one of ``skip`` are left out.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for reader in readers:
        for path, text in _sources(reader, package):
            if not any(part in path for part in skip):
                visitor = _Reader(package, path, text)
                for name, line in visitor.found:
                    found[name].append(f"{path}:{line}")
    return dict(found)


def resolves(name: str) -> bool:
    """Whether the dotted ``name`` exists in the importable package; what follows a class or value is not looked at."""
    return _value(name) is not MISSING


def unread(package: str, read: Iterable[str]) -> set[str]:
    """Public names of the importable ``package`` whose values are not among those that ``read`` names."""
    read_values = [_value(name) for name in read]
    names = set()
    for module in (module for name, module in sorted(sys.modules.items()) if name.split(".")[0] == package):
        for name, value in vars(module).items():
            foreign = isinstance(value, ModuleType) or getattr(value, "__module__", package).split(".")[0] != package
            if not name.startswith("_") and not foreign and not any(value is other for other in read_values):
                names.add(f"{getattr(value, '__module__', module.__name__)}.{name}")
    return names


def _value(name: str) -> object:
    value: object = importlib.import_module(name.split(".")[0])
    for step in name.split(".")[1:]:
        if not isinstance(value, ModuleType):
            return value
        value = getattr(value, step, MISSING)
    return value


MISSING = object()


def _sources(reader: str, package: str) -> Iterator[tuple[str, str]]:
    spec = importlib.util.find_spec(reader)
    assert spec is not None and spec.submodule_search_locations, f"{reader} is not installed"
    root = Path(next(iter(spec.submodule_search_locations)))
    imports = re.compile(rf"^\s*(import|from)\s+{package}\b|^\s*from\s.*import.*\b(triton|tl)\b".encode(), re.MULTILINE)
    for file in sorted(root.rglob("*.py")):
        content = file.read_bytes()
        if package.encode() in content and imports.search(content):
            yield str(file.relative_to(root.parent)), content.decode(errors="replace")


class _Reader(ast.NodeVisitor):
    """Collects the dotted names of one package that one file reads."""

    def __init__(self, package: str, path: str, text: str) -> None:
        self.package, self.path = package, path
        self.found: list[tuple[str, int]] = []
        self._names: list[dict[str, str]] = [{}]
        self._kernels = set(re.findall(r"\bjit\(\s*(\w+)\s*[,)]", text))
        self.visit(ast.parse(text))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == self.package:
                self._add(alias.name, node)
                self._names[-1][alias.asname or self.package] = alias.name if alias.asname else self.package

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        inside = node.level == 0 and (node.module or "").split(".")[0] == self.package
        for alias in node.names:
            full = f"{node.module}.{alias.name}" if inside else SHORT_NAMES.get(alias.name, "")
            if full.split(".")[0] == self.package:
                self._names[-1][alias.asname or alias.name] = full
                if inside:
                    self._add(full, node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        parts = _parts(node)
        full = self._lookup(parts[0]) if parts else None
        if full is None:
            self.generic_visit(node)
        else:
            self._add(".".join([full, *parts[1:]]), node)

    def visit_If(self, node: ast.If) -> None:
        if _last(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        everything = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        outside = [*node.decorator_list, *arguments.defaults, *arguments.kw_defaults]
        for part in [*outside, *(argument.annotation for argument in everything)]:
            if part is not None:
                self.visit(part)
        decorators = {_last(item.func if isinstance(item, ast.Call) else item) for item in node.decorator_list}
        if not decorators & KERNEL_DECORATORS and node.name not in self._kernels:
            self._names.append({})
            for statement in node.body:
                self.visit(statement)
            self._names.pop()

    def _add(self, name: str, node: ast.stmt | ast.expr) -> None:
        self.found.append((name, node.lineno))

    def _lookup(self, name: str) -> str | None:
        return next((names[name] for names in reversed(self._names) if name in names), None)


def _parts(node: ast.expr) -> list[str]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _last(node: ast.expr) -> str:
    return (_parts(node) or [""])[-1]
