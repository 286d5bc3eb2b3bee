"""Releases of every library that the catalogue changes, faked: modules with the names that the changes expect.

They exist in memory only; what a release has is `Release`, what is wrong with it is `Drift`.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

from patcher.changes import catalogue
from patcher.engine.choice import one_for_each_target
from patcher.engine.ledger import LEDGER
from patcher.engine.model import AnyChange, Kernel, Patch, State, Substitute
from patcher.engine.session import GATE, TRAINER, Session
from patcher.engine.signatures import parse_signature
from patcher.errors import GateClosed, RefusedChange
from tests.machines import M3_MAX

OURS = "driftfixes"
"""Holds every replacement: those of the catalogue would import the real torch."""

_FIXES = """
from contextlib import nullcontext as around
from types import ModuleType as Module
def function(*args, **options): pass
"""

_TORCH = """
from types import SimpleNamespace as _S
library = _S(Library=lambda *_: _S(impl=lambda *_, **__: None, _destroy=lambda: None), get_kernel=lambda *_: None)
ops = _S(**{space: _S(**{name: _S(**kinds) for name, kinds in names.items()}) for space, names in OPERATORS.items()})
"""

Targeted = Patch | Substitute | Kernel


def changes() -> tuple[Targeted, ...]:
    """Those of the catalogue that have a target upstream, each needed by the machine, with replacements of `OURS`."""
    return tuple(_faked(c) for c in one_for_each_target(catalogue()) if isinstance(c, (Patch, Substitute, Kernel)))


def _faked(change: Targeted) -> Targeted:
    if isinstance(change, Substitute):
        values = {
            name: f"{OURS}:function" if of.startswith("patcher.") else of for name, of in change.references.items()
        }
        return replace(change, skip=None, before=None, around=change.around and f"{OURS}:around", references=values)
    module_class = isinstance(change, Patch) and change.qualname == "__class__"
    return replace(change, skip=None, before=None, replacement=f"{OURS}:{'Module' if module_class else 'function'}")


@dataclass(frozen=True)
class Release:
    """One of all libraries together.

    Attributes:
        modules: a module's names, ``"f"`` or ``"Class.f"``, with their parameter lists.
        operators: torch's, as ``"aten::mm.out"``.
    """

    modules: dict[str, dict[str, str]]
    operators: frozenset[str]

    @classmethod
    def expected(cls, changes: Iterable[AnyChange]) -> Release:
        """What the changes were written for."""
        modules: dict[str, dict[str, str]] = {"torch": {}, GATE: {}, TRAINER: {}}
        for change in changes:
            if isinstance(change, Patch):
                names = modules.setdefault(change.module, {})
                holder = change.qualname.rpartition(".")[0]
                names.update({f"{holder}.other": "()"} if holder else {})
                if not change.adds and change.qualname != "__class__":
                    names[change.qualname] = _parameters(change.expects or "(*args, **options)")
                continue
            names = modules.setdefault(change.module, {}) if isinstance(change, (Substitute, Kernel)) else {}
            if isinstance(change, Substitute):
                names.update(dict.fromkeys([*change.constants, *change.references], "()"))
        return cls(modules, frozenset(change.op for change in changes if isinstance(change, Kernel)))

    def with_names(self, module: str, names: dict[str, str]) -> Release:
        """Another content of a module."""
        return replace(self, modules={**self.modules, module: names})

    def without_module(self, module: str) -> Release:
        """The module, with what is in it, was moved or deleted."""
        return replace(self, modules={name: names for name, names in self.modules.items() if not within(name, module)})

    def without_name(self, module: str, name: str) -> Release:
        """A function, a constant, or a class with all that is in it, was renamed or deleted."""
        names = self.modules[module]
        return self.with_names(module, {key: names[key] for key in names if not within(key, name)})

    def source(self, module: str) -> str:
        """The module: its names, then imports of its parts. Unsloth imports whatever there is, torch all of torch."""
        lines = list(_definitions(self.modules.get(module, {})))
        if module == "torch":
            lines += [f"OPERATORS = {_tree_of(self.operators)!r}", _TORCH]
            lines += [f"import {name}" for name in self.modules if name.startswith("torch.")]
        elif module == GATE:
            lines += [f"import {name}" for name in self.modules if name != GATE]
        return "\n".join(lines)


def within(name: str, holder: str) -> bool:
    """Whether a dotted name is another one or a part of it."""
    return name == holder or name.startswith(f"{holder}.")


def _parameters(expects: str) -> str:
    return str(parse_signature(expects))  # the defaults as None: upstream's refer to names of upstream's


def _definitions(names: dict[str, str]) -> Iterator[str]:
    parts: dict[str, dict[str, str]] = {}
    for name, parameters in names.items():
        head, _, rest = name.partition(".")
        parts.setdefault(head, {}).update({rest: parameters} if rest else {"": parameters})
    for head, inner in parts.items():
        if set(inner) == {""}:
            yield f"def {head}{inner['']}: pass"
        else:
            yield f"class {head}:"
            yield from (f"    {line}" for line in _definitions({key: inner[key] for key in inner if key}))


def _tree_of(operators: Iterable[str]) -> dict[str, dict[str, dict[str, bool]]]:
    tree: dict[str, dict[str, dict[str, bool]]] = {}
    for operator in operators:
        space, _, name = operator.partition("::")
        base, _, overload = name.partition(".")
        tree.setdefault(space, {}).setdefault(base, {})[overload or "default"] = True
    return tree


# -- what can be wrong ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drift:
    """A release in which one thing is not as expected.

    Attributes:
        what: in words.
        release: the release.
        refused: the keys of the changes that cannot be put in place.
        skipped: those that are no longer needed.
    """

    what: str
    release: Release
    refused: frozenset[str]
    skipped: frozenset[str] = frozenset()


def drifts(changes: tuple[Targeted, ...]) -> Iterator[Drift]:
    """Every single thing that can go wrong with a target, for every change."""
    good = Release.expected(changes)
    for change in changes:
        one = frozenset([change.key])
        if isinstance(change, Kernel):
            lost = frozenset(c.key for c in changes if isinstance(c, Kernel) and c.op == change.op)
            release = replace(good, operators=good.operators - {change.op})
            yield Drift(f"no operator {change.op}", release, lost)
        elif isinstance(change, Substitute):
            names = (*change.constants, *change.references)
            for name in (name for name in names if name not in change.may_lack):
                yield Drift(f"no name {change.module}:{name}", good.without_name(change.module, name), one)
        else:
            yield from _of_a_patch(change, good, one)
    yield from _of_classes(changes, good)
    yield from _of_modules(changes, good)


def _of_a_patch(patch: Patch, good: Release, one: frozenset[str]) -> Iterator[Drift]:
    names = good.modules[patch.module]
    if patch.adds:
        supplied = good.with_names(patch.module, {**names, patch.qualname: "()"})
        yield Drift(f"upstream has {patch.target} itself", supplied, frozenset(), skipped=one)
    elif patch.qualname in names:
        yield Drift(f"no name {patch.target}", good.without_name(patch.module, patch.qualname), one)
    if patch.expects is not None and not patch.adds:
        other = {**names, patch.qualname: f"(new, {names[patch.qualname][1:]}".replace("(new, )", "(new)")}
        yield Drift(f"a new parameter of {patch.target}", good.with_names(patch.module, other), one)


def _of_classes(changes: tuple[Targeted, ...], good: Release) -> Iterator[Drift]:
    patches = [change for change in changes if isinstance(change, Patch) and "." in change.qualname]
    for module, name in dict.fromkeys((patch.module, patch.qualname.partition(".")[0]) for patch in patches):
        lost = frozenset(p.key for p in patches if p.module == module and within(p.qualname, name))
        yield Drift(f"no class {module}:{name}", good.without_name(module, name), lost)


def _of_modules(changes: tuple[Targeted, ...], good: Release) -> Iterator[Drift]:
    for module in dict.fromkeys(change.module for change in changes if "." in change.module):
        lost = {change.key for change in changes if within(change.module, module)}
        dotted = [c for c in changes if isinstance(c, Substitute)]
        lost |= {c.key for c in dotted if module in {r.replace(":", ".") for r in c.references.values()}}
        yield Drift(f"no module {module}", good.without_module(module), frozenset(lost))


# -- importing it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of the imports.

    Attributes:
        imported: the modules that came up.
        named: the keys that errors of ours named.
        states: where every change stands at the end.
    """

    imported: frozenset[str]
    named: frozenset[str]
    states: dict[str, State]


def outcome(changes: tuple[Targeted, ...], release: Release, modules: Iterable[str]) -> Outcome:
    """Starts a session on the release, imports modules of it one after the other, and undoes."""
    imported, named = set(), set()
    with _installed(release):
        Session(M3_MAX, changes, strict=True).start()
        try:
            for module in modules:
                try:
                    importlib.import_module(module)
                    imported.add(module)
                except GateClosed as error:
                    named |= set(error.targets)
                except RefusedChange as error:
                    named |= {line.partition("target:")[2].strip() for line in str(error).splitlines()} - {""}
            states = {entry.change.key: entry.state for entry in LEDGER.entries()}
        finally:
            LEDGER.undo()
    return Outcome(frozenset(imported), frozenset(named), states)


@contextmanager
def _installed(release: Release) -> Iterator[None]:
    roots = {name.partition(".")[0] for name in release.modules} | {OURS}
    finder = _Finder(release, roots)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _take_out(roots)


@contextmanager
def hidden(roots: set[str]) -> Iterator[None]:
    """The real libraries of these names count as never imported."""
    real = _take_out(roots)
    try:
        yield
    finally:
        sys.modules.update(real)


def _take_out(roots: set[str]) -> dict[str, ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in roots}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers for the libraries of a release; a part that it lacks is found nowhere."""

    def __init__(self, release: Release, roots: set[str]) -> None:
        self._release, self._roots = release, roots
        dotted = [name.split(".") for name in release.modules]
        self._known = {".".join(parts[:end]) for parts in dotted for end in range(1, len(parts) + 1)} | {OURS}

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in self._known:
            return importlib.util.spec_from_loader(name, self, is_package=True)
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        exec(_compiled(_FIXES if name == OURS else self._release.source(name)), vars(module))  # noqa: S102


@cache
def _compiled(source: str) -> CodeType:
    return compile(source, "<drift>", "exec")
