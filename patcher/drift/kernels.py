"""The Triton kernels of a release. Each new one has to be looked at: does a Mac reach its launch?"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from patcher.drift.archives import Release

LANGUAGES = ("triton", "gluon")
"""The modules whose ``jit`` makes a kernel."""


@dataclass(frozen=True)
class Kernels:
    """What a release has, beside the one that was reviewed.

    Attributes:
        count: how many.
        reviewed: the version that they are compared with.
        new: by module the names that the reviewed release lacks.
        gone: by module the names that only the reviewed release has.
    """

    count: int
    reviewed: str
    new: Mapping[str, tuple[str, ...]]
    gone: Mapping[str, tuple[str, ...]]


def kernels_of(releases: Iterable[Release]) -> dict[str, Counter[str]]:
    """By module the functions that ``triton.jit`` decorates or is called with. What cannot be parsed is left out."""
    found = {}
    for release in releases:
        for name, module in release.modules.items():
            kernels = Counter(_kernels(module.text)) if b".jit" in module.text else None
            if kernels:
                found[name] = kernels
    return found


def compared(here: Iterable[Release], reviewed: Iterable[Release]) -> Kernels:
    """The kernels of releases beside those that were reviewed."""
    now, reviewed = kernels_of(here), tuple(reviewed)
    then = kernels_of(reviewed)
    count = sum(names.total() for names in now.values())
    versions = ", ".join(f"{release.name} {release.version}" for release in reviewed)
    return Kernels(count, versions, _without(now, then), _without(then, now))


def _without(these: Mapping[str, Counter[str]], those: Mapping[str, Counter[str]]) -> dict[str, tuple[str, ...]]:
    left = {name: tuple((kernels - those.get(name, Counter())).elements()) for name, kernels in these.items()}
    return {name: kernels for name, kernels in sorted(left.items()) if kernels}


def _kernels(text: bytes) -> Iterator[str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            if any(_is_jit(decorator) for decorator in node.decorator_list):
                yield node.name
        elif isinstance(node, ast.Call) and node.args and _is_jit(node.func):
            yield ast.unparse(node.args[0])


def _is_jit(node: ast.expr) -> bool:
    """Whether this is ``triton.jit``, or a call of it that gives a decorator."""
    while isinstance(node, ast.Call):
        node = node.func
    return isinstance(node, ast.Attribute) and node.attr == "jit" and ast.unparse(node.value) in LANGUAGES
