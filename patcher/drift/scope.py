"""What the names of a module or of a class body are bound to, as the text says."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

STAR = "*"
"""The name under which `names_of` has what ``from module import *`` takes from."""

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Imported:
    """``import module`` (``name`` is None) or ``from module import name``."""

    module: str
    name: str | None


Value: TypeAlias = Function | ast.ClassDef | Imported | ast.expr | None
"""A definition, an import, an expression that is assigned; None for what a loop, a ``with`` or unpacking gives."""


@dataclass(frozen=True)
class Name:
    """What a name stands for when the body has run.

    Attributes:
        values: one where it is certain; several where conditions decide; none where it was deleted.
        always: whether it is bound whatever the conditions.
    """

    values: tuple[Value, ...]
    always: bool


Names: TypeAlias = Mapping[str, Name]


def names_of(body: Iterable[ast.stmt], package: str) -> dict[str, Name]:
    """The names that a body binds, in functions' bodies excepted; relative imports start from ``package``."""
    found: dict[str, Name] = {}
    for statement in body:
        for name, bound in _names_of(statement, package).items():
            found[name] = _after(name, found.get(name), bound)
    return found


def _after(name: str, before: Name | None, now: Name) -> Name:
    """The later binding holds. ``f = wrapper(f)`` keeps what ``f`` was: a decorated function keeps its parameters."""
    if before is None or not before.values:
        return now
    values = tuple(value for value in now.values if not _reads(value, name))
    if now.values and not values:
        return before
    return Name(values, True) if now.always else Name((*before.values, *values), before.always)


def _reads(value: Value, name: str) -> bool:
    return isinstance(value, ast.expr) and any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(value))


def _names_of(statement: ast.stmt, package: str) -> Names:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name: Name((statement,), True)}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return _imports(statement, package)
    if isinstance(statement, (ast.If, ast.Try, ast.Match, ast.For, ast.While)):
        return _under_conditions(statement, package)
    if isinstance(statement, ast.With):
        entered = [item.optional_vars for item in statement.items if item.optional_vars is not None]
        return {**_bound(entered, None), **names_of(statement.body, package)}
    if isinstance(statement, ast.Assign):
        return _bound(statement.targets, statement.value)
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return _bound([statement.target], statement.value)
    if isinstance(statement, ast.Delete):
        return {target.id: Name((), True) for target in statement.targets if isinstance(target, ast.Name)}
    return {}


def _imports(statement: ast.Import | ast.ImportFrom, package: str) -> Names:
    if isinstance(statement, ast.Import):
        modules = ((a.asname or a.name.partition(".")[0], a.name if a.asname else "") for a in statement.names)
        return {name: Name((Imported(module or name, None),), True) for name, module in modules}
    module = _absolute(statement, package)
    return {
        alias.asname or alias.name: Name((Imported(module, alias.name),), alias.name != STAR)
        for alias in statement.names
    }


def _absolute(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - statement.level + 1]
    return ".".join([*base, *([statement.module] if statement.module else [])])


def _under_conditions(statement: ast.If | ast.Try | ast.Match | ast.For | ast.While, package: str) -> Names:
    if isinstance(statement, ast.If):
        body = [] if _for_type_checkers(statement.test) else statement.body
        return _one_of([names_of(body, package), names_of(statement.orelse, package)])
    if isinstance(statement, ast.Match):
        return _one_of([*(names_of(case.body, package) for case in statement.cases), {}])
    if isinstance(statement, ast.Try):
        handlers = [handler.body for handler in statement.handlers if not isinstance(handler.body[-1], ast.Raise)]
        bodies = [[*statement.body, *statement.orelse], *handlers]
        return {**_one_of([names_of(b, package) for b in bodies]), **names_of(statement.finalbody, package)}
    target = [statement.target] if isinstance(statement, ast.For) else []
    return _one_of([{**_bound(target, None), **names_of(statement.body, package)}, {}])


def _for_type_checkers(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _one_of(branches: Sequence[Names]) -> dict[str, Name]:
    found = {}
    for name in dict.fromkeys(name for branch in branches for name in branch):
        bound = [branch[name] for branch in branches if name in branch]
        values = tuple(value for one in bound for value in one.values)
        found[name] = Name(values, len(bound) == len(branches) and all(one.always for one in bound))
    return found


def _bound(targets: Iterable[ast.expr], value: ast.expr | None) -> dict[str, Name]:
    return {name: Name((given,), True) for target in targets for name, given in _pairs(target, value)}


def _pairs(target: ast.expr, value: ast.expr | None) -> Iterator[tuple[str, ast.expr | None]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, (ast.Tuple, ast.List)):
        single = isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts)
        given = value.elts if single and isinstance(value, (ast.Tuple, ast.List)) else [None] * len(target.elts)
        for inner, part in zip(target.elts, given, strict=True):
            yield from _pairs(inner.value if isinstance(inner, ast.Starred) else inner, part)
