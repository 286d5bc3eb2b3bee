"""The only code that sets or deletes attributes of foreign objects. It applies, reports and undoes every change.

There is one ledger per process, `LEDGER`: what is in place is what it holds, and there is no other memory.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from patcher import imports
from patcher.errors import RefusedChange, UndoConflict, compose
from patcher.machine import Machine
from patcher.model import AnyChange, EnvDefault, Kernel, Patch, Shim, State, Substitute

_MISSING = object()


@dataclass(frozen=True)
class Entry:
    """One line of the report: a change and where it stands.

    Attributes:
        change: the change.
        state: see `State`.
        detail: why it was skipped or refused, or what is to be known about it; "" if nothing.
        installed: the installed version of the library, or None.
    """

    change: AnyChange
    state: State
    detail: str = ""
    installed: str | None = None


@dataclass(frozen=True)
class _Binding:
    """A value that was set: where, what was there (or `_MISSING`), and what is there now."""

    target: str
    holder: Any
    name: str
    before: Any
    after: Any

    def current(self) -> Any:
        return vars(self.holder).get(self.name, _MISSING)

    def restore(self) -> None:
        if self.before is _MISSING:
            delattr(self.holder, self.name)
        else:
            setattr(self.holder, self.name, self.before)


class Ledger:
    """Every change of this process, in the order in which it was put in place."""

    def __init__(self) -> None:
        self.machine: Machine | None = None
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._bindings: list[_Binding] = []
        self._originals: dict[str, Any] = {}
        self._cleanups: list[Callable[[], None]] = []

    # -- reading ---------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """Every registered change with its state, in the order of registration."""
        with self._lock:
            return list(self._entries.values())

    def entry(self, change: AnyChange) -> Entry:
        """Where ``change`` stands. Raises KeyError when it was never registered."""
        return self._entries[key_of(change)]

    def original(self, target: str) -> Any:
        """What ``target`` was before it was patched (a plain function for static and class methods).

        Raises KeyError when ``target`` is not patched.
        """
        return self._originals[target]

    # -- writing ---------------------------------------------------------------------------------------------------

    def register(self, changes: Iterable[AnyChange]) -> None:
        """Adds ``changes`` to the report as pending."""
        with self._lock:
            for change in changes:
                self._entries[key_of(change)] = Entry(change, State.PENDING)

    def mark(self, change: AnyChange, state: State, detail: str = "") -> Entry:
        """Records where ``change`` stands, and returns the record."""
        entry = Entry(change, state, detail, installed_version(change.distribution))
        with self._lock:
            self._entries[key_of(change)] = entry
        return entry

    def mark_in_place(self, change: AnyChange, detail: str = "") -> Entry:
        """Records ``change`` as applied, or as unreviewed if nobody read the installed version."""
        installed = installed_version(change.distribution)
        state = State.APPLIED if is_reviewed(change, installed) else State.UNREVIEWED
        return self.mark(change, state, detail)

    def on_undo(self, cleanup: Callable[[], None]) -> None:
        """Calls ``cleanup`` when everything is undone, after the attributes are restored, last in first out."""
        with self._lock:
            self._cleanups.append(cleanup)

    def apply(self, patch: Patch, module: ModuleType) -> Entry:
        """Puts ``patch`` in place in ``module``, or records why not. Never raises for a shape that does not match."""
        with self._lock:
            if self._entries.get(key_of(patch), Entry(patch, State.PENDING)).state in _IN_PLACE:
                return self._entries[key_of(patch)]
            reason = patch.skip(self.machine) if patch.skip and self.machine else None
            if reason is not None:
                return self.mark(patch, State.SKIPPED, reason)
            try:
                self._bind(patch, module)
            except _AlreadyThere as found:
                return self.mark(patch, State.SKIPPED, str(found))
            except RefusedChange as refusal:
                return self.mark(patch, State.REFUSED, str(refusal))
            return self.mark_in_place(patch)

    def register_kernel(self, change: Kernel) -> Entry:
        """Gives a torch operator the kernel of ``change``, or records why not."""
        import torch

        with self._lock:
            if self._entries.get(key_of(change), Entry(change, State.PENDING)).state in _IN_PLACE:
                return self._entries[key_of(change)]
            reason = change.skip(self.machine) if change.skip and self.machine else None
            if reason is not None:
                return self.mark(change, State.SKIPPED, reason)
            namespace, _, name = change.op.partition("::")
            library = torch.library.Library(namespace, "IMPL")
            library.impl(name, load(change.replacement), change.key)
            self._cleanups.append(library._destroy)
            return self.mark_in_place(change)

    def substitute(self, change: Substitute, module: ModuleType) -> Entry:
        """Gives the names of ``module`` the values of ``change``; each must exist."""
        values = {**change.constants, **{name: load(reference) for name, reference in change.references.items()}}
        missing = [name for name in values if name not in vars(module)]
        if missing:
            installed = f"{change.distribution} {installed_version(change.distribution)}"
            detail = compose(
                f"{change.module} does not have the names that are set in it",
                installed=installed,
                expected=", ".join(missing),
                found="no such name",
                left="unchanged",
                run=f"pip install '{change.distribution}{change.reviewed}'",
            )
            return self.mark(change, State.REFUSED, detail)
        for name, value in values.items():
            self._set(f"{change.module}:{name}", module, name, value)
        return self.mark_in_place(change)

    def _set(self, target: str, holder: Any, name: str, value: object) -> Any:
        before = vars(holder).get(name, _MISSING)
        setattr(holder, name, value)
        self._bindings.append(_Binding(target, holder, name, before, value))
        return before

    def _bind(self, patch: Patch, module: ModuleType) -> None:
        holder, name = _resolve(patch, module)
        before = vars(holder).get(name, _MISSING)
        found = getattr(holder, name, _MISSING)
        if patch.adds and found is not _MISSING:
            raise _AlreadyThere(f"{patch.distribution} has {patch.qualname} itself")
        if not patch.adds and found is _MISSING:
            raise RefusedChange(_mismatch(patch, f"{name} in {patch.module}", "no such name"))
        static = found if before is _MISSING else before
        original = static.__func__ if isinstance(static, (staticmethod, classmethod)) else found
        if isinstance(original, property) or patch.adds:
            original = static
        if patch.expects is not None and not patch.adds:
            _check_signature(patch, original)
        replacement = load(patch.replacement)
        after = type(static)(replacement) if isinstance(static, (staticmethod, classmethod)) else replacement
        self._set(patch.target, holder, name, after)
        self._originals[patch.target] = original

    # -- undoing ---------------------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Restores everything in reverse order, copies by name in other modules included.

        Raises UndoConflict, and changes nothing, if a value is no longer the one that was put in place.
        """
        with self._lock:
            conflicts = [binding for binding in self._bindings if not self._undoable(binding)]
            if conflicts:
                raise UndoConflict(
                    compose(
                        "cannot undo: somebody patched over what was put in place",
                        target=", ".join(binding.target for binding in conflicts),
                        found=", ".join(repr(binding.current()) for binding in conflicts),
                        left="nothing was undone",
                        run="undo the other patch first",
                    )
                )
            self._restore_copies()
            while self._bindings:
                self._bindings.pop().restore()
            self._originals.clear()
            while self._cleanups:
                self._cleanups.pop()()
            self._entries.clear()
            self.machine = None

    def _undoable(self, binding: _Binding) -> bool:
        later = [b for b in self._bindings if b.holder is binding.holder and b.name == binding.name]
        return later[-1].current() is later[-1].after

    def _restore_copies(self) -> None:
        replaced = {
            id(_plain(binding.after)): self._originals[binding.target]
            for binding in self._bindings
            if binding.target in self._originals and binding.before is not _MISSING and callable(_plain(binding.after))
        }
        for module, name, value in imports.names_in_modules():
            if id(value) in replaced and not module.__name__.partition(".")[0] == "patcher":
                setattr(module, name, replaced[id(value)])


class _AlreadyThere(Exception):
    """Upstream supplies what an adding patch would add."""


_IN_PLACE = (State.APPLIED, State.UNREVIEWED)

LEDGER = Ledger()


def original(target: str) -> Any:
    """What ``target`` (``"package.module:Class.name"``) was before it was patched.

    For replacements that call what they replace. Raises KeyError when it is not patched.
    """
    return LEDGER.original(target)


def key_of(change: AnyChange) -> str:
    """The text that names a change in the report: its target, module or variable."""
    if isinstance(change, Patch):
        return change.target
    if isinstance(change, EnvDefault):
        return f"${change.name}"
    if isinstance(change, Shim):
        return f"shim {change.module}"
    if isinstance(change, Kernel):
        return f"{change.op} on {change.key}"
    return f"module {change.module}"


def load(reference: str) -> Any:
    """The object that ``"package.module:name"`` refers to; imports the module."""
    module, _, qualname = reference.partition(":")
    value: Any = importlib.import_module(module)
    for name in qualname.split("."):
        value = getattr(value, name)
    return value


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None; a shim answers its own."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def is_reviewed(change: AnyChange, installed: str | None) -> bool:
    """Whether the installed version is one that somebody read. Shims and variables do not depend on one."""
    from packaging.specifiers import SpecifierSet

    if isinstance(change, (Shim, EnvDefault)):
        return True
    return installed is not None and SpecifierSet(change.reviewed, prereleases=True).contains(installed)


def holders_of(values: dict[int, str], *, defined_in: Iterable[str] = ()) -> Iterator[tuple[str, str]]:
    """Modules that hold one of ``values`` (by identity) under some name, as (target, ``module.name``).

    Args:
        values: id of the object to the target that it belongs to.
        defined_in: module names that are not reported (the targets' own modules).
    """
    own = set(defined_in)
    for module, name, value in imports.names_in_modules():
        if id(value) in values and module.__name__ not in own:
            yield values[id(value)], f"{module.__name__}.{name}"


def _plain(value: Any) -> Any:
    return value.__func__ if isinstance(value, (staticmethod, classmethod)) else value


def _resolve(patch: Patch, module: ModuleType) -> tuple[Any, str]:
    """The object that holds the target's name, and that name."""
    *path, name = patch.qualname.split(".")
    holder: Any = module
    for step in path:
        holder = getattr(holder, step, _MISSING)
        if holder is _MISSING:
            raise RefusedChange(_mismatch(patch, f"{step} in {patch.module}", "no such name"))
    return holder, name


def _check_signature(patch: Patch, found: Any) -> None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        raise RefusedChange(_mismatch(patch, str(patch.expects), f"{found!r}, which has no signature")) from None
    if _shape(signature) != _shape(parse_signature(str(patch.expects))):
        raise RefusedChange(_mismatch(patch, str(patch.expects), str(signature)))


def parse_signature(text: str) -> inspect.Signature:
    """A parameter list written as ``"(a, b=None, *args, key=1, **rest)"`` as a signature; defaults only by presence."""
    import ast

    function = ast.parse(f"def f{text}: pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    arguments, kind = function.args, inspect.Parameter
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    parameters = [
        inspect.Parameter(
            argument.arg,
            kind.POSITIONAL_ONLY if index < len(arguments.posonlyargs) else kind.POSITIONAL_OR_KEYWORD,
            default=kind.empty if index < required else None,
        )
        for index, argument in enumerate(positional)
    ]
    if arguments.vararg:
        parameters.append(inspect.Parameter(arguments.vararg.arg, kind.VAR_POSITIONAL))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        value = kind.empty if default is None else None
        parameters.append(inspect.Parameter(argument.arg, kind.KEYWORD_ONLY, default=value))
    if arguments.kwarg:
        parameters.append(inspect.Parameter(arguments.kwarg.arg, kind.VAR_KEYWORD))
    return inspect.Signature(parameters)


def _shape(signature: inspect.Signature) -> list[tuple[str, str, bool]]:
    return [(p.name, p.kind.name, p.default is not p.empty) for p in signature.parameters.values()]


def _mismatch(patch: Patch, expected: str, found: str) -> str:
    installed = installed_version(patch.distribution)
    return compose(
        f"{patch.qualname} does not have the shape that this change was written for",
        target=patch.target,
        installed=f"{patch.distribution} {installed}",
        expected=f"{expected} ({patch.distribution}{patch.reviewed})",
        found=found,
        left="unchanged",
        run=f"pip install '{patch.distribution}{patch.reviewed}'",
    )


__all__ = ["LEDGER", "Entry", "Ledger", "Substitute", "holders_of", "installed_version", "key_of", "load", "original"]
