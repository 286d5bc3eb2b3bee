"""Reads Python that somebody generated and finds what only works on CUDA.

The kinds of leftovers:

* ``device``: the text "cuda" or "cuda:0", wherever it stands but in a comparison; an f-string that begins so;
* ``branch``: a condition that is true on CUDA only: a comparison with "cuda", ``is_cuda``, ``torch.version.cuda`` and
  ``hip``, ``torch.cuda.is_available()``;
* ``torch.cuda``: a name of ``torch.cuda`` that is not among those answered for mps, however it was imported;
* ``backends``: ``torch.backends.cuda`` and ``cudnn``;
* ``method``: ``.cuda()``;
* ``triton``: an import of Triton or a name of it;
* ``launch``: ``kernel[grid](...)``;
* ``option``: an option of the compiler that is for Triton or CUDA, and not off;
* ``nccl``: the text "nccl".

Text that is itself a program of several lines is read likewise.
"""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

DEVICE = re.compile(r"^cuda(:.*)?$")
OPTION = re.compile(r"^(triton|cuda|cutlass|rocm)\.")
QUERIES = ("torch.cuda.is_available", "torch.version.cuda", "torch.version.hip")


@dataclass(frozen=True)
class Leftover:
    """One place: the file, the function around it, the kind, and the expression as `ast.unparse` writes it."""

    file: str
    function: str
    kind: str
    code: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.kind}: {self.code}"


class _Reader(ast.NodeVisitor):
    def __init__(self, file: str, answered: Collection[str]) -> None:
        self.file = file
        self.answered = answered
        self.found: list[Leftover] = []
        self.scope: list[str] = []
        self.names: dict[str, str] = {"torch": "torch", "triton": "triton"}
        self.compared: set[ast.AST] = set()
        self.settled: set[ast.AST] = set()

    def add(self, kind: str, node: Any, code: str | None = None) -> None:
        text = ast.unparse(node) if code is None else code
        self.found.append(Leftover(self.file, ".".join(self.scope) or "<module>", kind, text, node.lineno))

    def scoped(self, node: Any) -> None:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            self.settled.add(first.value)
        self.scope.append(node.name)
        self.generic_visit(node)
        self.scope.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = scoped

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.imported(alias.name, alias.asname or alias.name.partition(".")[0], alias.asname is not None, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names if not node.level else ():
            self.imported(f"{node.module}.{alias.name}", alias.asname or alias.name, True, node)

    def imported(self, name: str, known_as: str, whole: bool, node: ast.stmt) -> None:
        """What a name means from here on; ``import a.b`` without ``as`` binds ``a`` only."""
        if name.partition(".")[0] == "triton":
            self.add("triton", node)
        self.names[known_as] = name if whole else known_as
        if name.startswith("torch.cuda.") and whole:
            self.of_torch(name, node)

    def dotted(self, node: ast.expr) -> str:
        """The full name of ``a.b.c``, as far as the imports say what ``a`` is; "" for anything else."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, "")
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return f"{base}.{node.attr}" if base else ""
        return ""

    def of_torch(self, name: str, node: Any) -> bool:
        """Whether a dotted name was one to judge, and what follows from it."""
        if name in QUERIES:
            self.add("branch", node)
        elif name.startswith("torch.cuda."):
            if name.split(".")[2] not in self.answered:
                self.add("torch.cuda", node)
        elif name.startswith(("torch.backends.cuda", "torch.backends.cudnn")):
            self.add("backends", node)
        else:
            return False
        return True

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self.dotted(node)
        if self.of_torch(name, node):
            return
        if name.startswith("triton."):
            self.add("triton", node)
            return
        if name == "torch.cuda":
            self.add("torch.cuda", node)
        elif node.attr == "is_cuda":
            self.add("branch", node)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        name = self.names.get(node.id, "")
        if node.id != "triton" and name.startswith("triton"):
            self.add("triton", node)
        elif name == "torch.cuda":
            self.add("torch.cuda", node)

    def visit_Compare(self, node: ast.Compare) -> None:
        sides = [part for side in (node.left, *node.comparators) for part in _parts(side)]
        texts = [part for part in sides if isinstance(part, ast.Constant) and _is_device(part.value)]
        if texts:
            self.settled.update(texts)
            self.add("branch", node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr == "cuda":
            self.add("method", node)
        elif isinstance(function, ast.Subscript) and _is_grid(function.slice):
            self.add("launch", node, ast.unparse(function))
        elif isinstance(function, ast.Attribute) and function.attr in ("startswith", "removeprefix"):
            texts = [part for part in node.args if isinstance(part, ast.Constant) and _is_device(part.value)]
            if texts:
                self.settled.update(texts)
                self.add("branch", node)
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            name = key.value if isinstance(key, ast.Constant) else None
            off = isinstance(value, ast.Constant) and not value.value
            if isinstance(name, str) and OPTION.match(name) and not off:
                self.add("option", key, f"{name!r}: {ast.unparse(value)}")
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        first = node.values[0] if node.values else None
        if isinstance(first, ast.Constant) and _is_device(first.value):
            self.settled.add(first)
            self.add("device", node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if not isinstance(node.value, str) or node in self.settled:
            return
        if _is_device(node.value):
            self.add("device", node)
        elif node.value == "nccl":
            self.add("nccl", node)
        elif "\n" in node.value and "cuda" in node.value:
            self.program(node)

    def program(self, node: ast.Constant) -> None:
        """Text of several lines, if it is Python."""
        try:
            tree = ast.parse(node.value)
        except SyntaxError:
            return
        inner = _Reader(self.file, self.answered)
        inner.scope = [*self.scope, "<text>"]
        inner.visit(tree)
        self.found += inner.found


def _is_device(value: object) -> bool:
    return isinstance(value, str) and DEVICE.match(value) is not None


def _is_grid(node: ast.expr) -> bool:
    """A tuple of blocks, a function of the kernel's constants, or a variable that is called so."""
    return isinstance(node, (ast.Tuple, ast.Lambda)) or "grid" in ast.unparse(node).lower()


def _parts(node: ast.expr) -> Iterable[ast.expr]:
    return node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]


def leftovers(source: str, file: str, answered: Collection[str]) -> list[Leftover]:
    """Everything in a file that only works on CUDA; ``answered``: names of ``torch.cuda`` that work on mps."""
    reader = _Reader(file, answered)
    reader.visit(ast.parse(source))
    return reader.found


def judge(found: Iterable[Leftover], allowed: list[dict[str, Any]]) -> tuple[list[Leftover], list[dict[str, Any]]]:
    """What no entry of the list allows, and the entries that allow nothing.

    An entry has ``file`` and ``function`` (patterns), ``kind``, ``code`` (expressions, patterns) and ``why``.
    """
    used: set[int] = set()
    rest = []
    for one in found:
        entries = [index for index, entry in enumerate(allowed) if _allows(entry, one)]
        used.update(entries)
        if not entries:
            rest.append(one)
    stale = [
        {**entry, "code": [code]}
        for entry in allowed
        for code in entry["code"]
        if not any(_allows({**entry, "code": [code]}, one) for one in found)
    ]
    return rest, stale


def _allows(entry: dict[str, Any], one: Leftover) -> bool:
    return (
        fnmatch.fnmatchcase(one.file, entry["file"])
        and fnmatch.fnmatchcase(one.function, entry["function"])
        and one.kind == entry["kind"]
        and one.code in entry["code"]
    )
