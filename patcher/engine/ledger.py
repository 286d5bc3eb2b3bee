"""The only code that sets or deletes attributes of foreign objects. It applies, reports and undoes every change.

There is one ledger per process, `LEDGER`: what is in place is what it holds, and there is no other memory.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import CellType, ModuleType
from typing import Any, TypeVar

from patcher.engine import imports
from patcher.engine.attributes import (
    MISSING,
    cells_of_wrapper,
    defining_package,
    function_of,
    in_the_form_of,
    is_wrapped,
    lookup,
    own,
)
from patcher.engine.model import AnyChange, EnvDefault, Kernel, Patch, Shim, State, Substitute
from patcher.engine.stand_in import standing_in
from patcher.engine.targets import (
    before_it_came,
    check_signature,
    installed_version,
    is_reviewed,
    is_there,
    load_for,
    mismatch,
    outdated,
    predates,
    resolve,
)
from patcher.errors import InvalidSwitch, RefusedChange, UndoConflict, compose
from patcher.macs.machine import Machine, detect

_LOGGER = logging.getLogger("patcher")
_T = TypeVar("_T")
_IN_PLACE = (State.APPLIED, State.UNREVIEWED)


@dataclass(frozen=True)
class Entry:
    """One line of the report: a change and where it stands.

    Attributes:
        change: the change.
        state: see `State`.
        detail: why it was skipped or refused, or what is to be known about it; "" if nothing.
        installed: the version of the library that was changed; None while pending, and for a variable.
        error: what was raised while it was put in place, or None.
    """

    change: AnyChange
    state: State
    detail: str = ""
    installed: str | None = None
    error: BaseException | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class _Binding:
    """A value that was set: where, what was there (or `MISSING`), and what is there now.

    ``origin`` is the top-level package that defines the value; "" where copies of it are not ours to restore.
    """

    target: str
    holder: Any
    name: str
    before: Any
    after: Any
    origin: str = ""

    def stands(self) -> bool:
        """Whether the value is still the one that was set, or a wrapper of it that keeps what it wraps in a closure."""
        return self.current() is self.after or bool(self._cells())

    def current(self) -> Any:
        return own(self.holder, self.name)

    def restore(self) -> None:
        """Puts back what was there; a wrapper that somebody has put around the value stays, around what was there."""
        cells = self._cells()
        if cells:
            self.current().__wrapped__ = self.before
            for cell in cells:
                cell.cell_contents = self.before
        elif self.before is MISSING:
            delattr(self.holder, self.name)
        else:
            setattr(self.holder, self.name, self.before)

    def _cells(self) -> list[CellType]:
        return [] if self.before is MISSING else cells_of_wrapper(self.current(), self.after)


class Ledger:
    """Every change of this process, in the order in which it was put in place.

    The lock guards the ledger's own lists only. It is never held while a module is imported: another thread may hold
    that module's import lock and wait for this one.
    """

    def __init__(self) -> None:
        self.machine: Machine | None = None
        self.notes: list[str] = []
        """What the user should know besides the changes: limits that do not fit, switches without effect."""
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._bindings: dict[tuple[int, str], list[_Binding]] = {}
        """What was set under each name of an object (by its identity: the binding keeps it alive), in that order."""
        self._originals: dict[str, Any] = {}
        self._cleanups: list[Callable[[], object]] = []
        self._versions: dict[str, str | None] = {}
        self._memory: dict[Callable[[], Any], Any] = {}
        self._told: set[str] = set()

    def entries(self) -> list[Entry]:
        """Every registered change with its state, in the order of registration."""
        with self._lock:
            return list(self._entries.values())

    def entry(self, change: AnyChange) -> Entry:
        """Where ``change`` stands. Raises KeyError when it was never registered."""
        return self._entries[change.key]

    def original(self, target: str) -> Any:
        """What ``target`` was before it was patched; of static methods, class methods and properties the function.

        Raises KeyError when ``target`` is not patched.
        """
        return self._originals[target]

    def register(self, changes: Iterable[AnyChange]) -> None:
        """Adds ``changes`` to the report as pending."""
        with self._lock:
            for change in changes:
                self._entries[change.key] = Entry(change, State.PENDING)

    def mark(self, change: AnyChange, state: State, detail: str = "", error: BaseException | None = None) -> Entry:
        """Records where ``change`` stands, and returns the record."""
        entry = Entry(change, state, detail, self._installed(change), error)
        with self._lock:
            self._entries[change.key] = entry
        _LOGGER.info("patcher: %-10s %s  %s", state.value, change.key, detail)
        return entry

    def mark_in_place(self, change: AnyChange, detail: str = "") -> Entry:
        """Records ``change`` as applied, or as unreviewed if nobody read the installed version."""
        reviewed = is_reviewed(change, self._installed(change))
        return self.mark(change, State.APPLIED if reviewed else State.UNREVIEWED, detail)

    @contextmanager
    def meanwhile(self, holder: Any, name: str, value: Any) -> Iterator[None]:
        """``holder.name`` is ``value`` until the block ends, and then what it was."""
        before = own(holder, name)
        setattr(holder, name, value)
        try:
            yield
        finally:
            setattr(holder, name, before)

    def on_undo(self, cleanup: Callable[[], object]) -> None:
        """Calls ``cleanup`` when everything is undone, after the attributes are restored, last in first out."""
        with self._lock:
            self._cleanups.append(cleanup)

    def memory(self, kind: Callable[[], _T]) -> _T:
        """What replacements remember in one object of ``kind``: made when first asked for, forgotten by `undo`."""
        with self._lock:
            if kind not in self._memory:
                self._memory[kind] = kind()
            found: _T = self._memory[kind]
            return found

    def is_news(self, fact: str) -> bool:
        """Whether nobody has asked so for ``fact`` since the last `undo`: what is to be said once is said then."""
        if fact in self._told:  # no lock: torch.compile traces through this
            return False
        self._told.add(fact)
        return True

    def apply(self, change: Patch | Substitute | Kernel, module: ModuleType) -> Entry:
        """Puts ``change`` in place in ``module``, whose body has run, or records why not.

        Nothing is raised for a target of another shape or a replacement that cannot be imported: the entry tells. A
        module whose body has run again (``importlib.reload``) gets its changes again.
        """
        try:
            if self._is_in_place(change, module):
                return self.entry(change)
            reason = self._why_not(change, module)
            if reason is not None:
                return self.mark(change, State.SKIPPED, reason)
            if isinstance(change, Patch):
                self._bind(change, module)
            elif isinstance(change, Substitute):
                self._give(change, module)
            else:
                self._implement(change)
        except (RefusedChange, InvalidSwitch) as refusal:
            return self.mark(change, State.REFUSED, str(refusal), refusal.__cause__)
        return self.mark_in_place(change)

    def _is_in_place(self, change: Patch | Substitute | Kernel, module: ModuleType) -> bool:
        known = self._entries.get(change.key)
        if known is None or known.state not in _IN_PLACE or isinstance(change, Substitute):
            return False
        if isinstance(change, Kernel):
            return True
        holder, name = resolve(change, module)
        return any(binding.stands() for binding in self._at(holder, name))

    def _why_not(self, change: Patch | Substitute | Kernel, module: ModuleType) -> str | None:
        reason = change.skip(self.machine) if change.skip and self.machine else None
        reason = reason or outdated(change, self._installed(change))
        if reason is not None or not isinstance(change, Patch):
            return reason
        if predates(change, self._installed(change)) and not is_there(change, module):
            return before_it_came(change, self._installed(change))
        if change.adds:
            holder, name = resolve(change, module)
            if lookup(holder, name) is not MISSING and not self._at(holder, name):
                return f"{change.distribution} has {change.qualname} itself"
        return None

    def _bind(self, patch: Patch, module: ModuleType) -> None:
        holder, name = resolve(patch, module)
        there = lookup(holder, name)
        if there is MISSING and not patch.adds:
            raise RefusedChange(mismatch(patch, f"{name} in {patch.module}", "no such name"))
        original = function_of(there) if is_wrapped(there) else getattr(holder, name, MISSING)
        if patch.expects is not None and not patch.adds:
            check_signature(patch, original)
        replacement = load_for(patch, patch.replacement)
        value = standing_in(patch.target, there, in_the_form_of(there, replacement))
        self._set(patch, holder, name, value, patch.replacement)
        with self._lock:
            self._originals[patch.target] = original

    def _give(self, change: Substitute, module: ModuleType) -> None:
        references = {name: load_for(change, reference) for name, reference in change.references.items()}
        values = {**change.constants, **references}
        missing = [name for name in values if name not in vars(module)]
        if not set(missing) <= set(change.may_lack):
            raise RefusedChange(mismatch(change, ", ".join(missing), "no such name"))
        for name, value in values.items():
            if name not in missing:
                self._set(change, module, name, value, change.references.get(name, ""))

    def _implement(self, change: Kernel) -> None:
        import torch

        function = load_for(change, change.replacement)
        namespace, _, name = change.op.partition("::")
        base, _, overload = name.partition(".")
        operator = getattr(getattr(torch.ops, namespace), base, None)
        if not hasattr(operator, overload or "default"):  # torch 2.13.0 library.impl takes a name that torch lacks
            raise RefusedChange(mismatch(change, f"an operator {change.op}", "no such operator"))
        new_library: Any = torch.library.Library
        try:
            before = torch.library.get_kernel(change.op, change.dispatch_key) if change.wraps else None
            library = new_library(namespace, "IMPL")
            with warnings.catch_warnings():
                # torch 2.13.0 OperatorEntry.cpp says so once, of whatever operator is overridden first.
                warnings.filterwarnings("ignore", "Warning only once for all operators", UserWarning)
                library.impl(name, function, change.dispatch_key, with_keyset=change.wraps)
        except RuntimeError as error:
            raise RefusedChange(mismatch(change, f"an operator {change.op}", str(error))) from error
        self.on_undo(library._destroy)
        if before is not None:
            with self._lock:
                self._originals[change.key] = before

    def _set(self, change: Patch | Substitute, holder: Any, name: str, value: Any, reference: str) -> None:
        """Sets ``holder.name``. Earlier values that no longer stand are forgotten: the body has run again since."""
        origin = reference.partition(":")[0].partition(".")[0]
        origin = origin if defining_package(value) == origin else ""
        target = change.target if isinstance(change, Patch) else f"{change.module}:{name}"
        with self._lock:
            standing = [binding for binding in self._at(holder, name) if binding.stands()]
            before = own(holder, name)
            try:
                setattr(holder, name, value)
            except (AttributeError, TypeError) as error:
                raise RefusedChange(mismatch(change, f"{name} can be set", str(error))) from error
            self._bindings[id(holder), name] = [*standing, _Binding(target, holder, name, before, value, origin)]

    def _at(self, holder: Any, name: str) -> list[_Binding]:
        return self._bindings.get((id(holder), name), [])

    def _all_bindings(self) -> list[_Binding]:
        return [binding for bindings in self._bindings.values() for binding in bindings]

    def _installed(self, change: AnyChange) -> str | None:
        if isinstance(change, EnvDefault):
            return None
        if isinstance(change, Shim):
            return change.version
        if change.distribution not in self._versions:
            self._versions[change.distribution] = installed_version(change.distribution)
        return self._versions[change.distribution]

    def undo(self) -> None:
        """Restores everything in reverse order, copies by name in other modules included.

        Raises UndoConflict, and changes nothing, if a value is no longer the one that was put in place.
        """
        with self._lock:
            self._refuse_conflicts()
            self._restore_copies()
            with ExitStack() as stack:  # last in, first out, each one also after another has failed
                stack.callback(self._originals.clear)  # last: until its kernel is gone another thread may ask
                for cleanup in self._cleanups:
                    stack.callback(cleanup)
                for binding in self._all_bindings():
                    stack.callback(binding.restore)
                self.machine = None
                self.notes.clear()
                for held in (self._entries, self._versions, self._bindings, self._cleanups, self._memory, self._told):
                    held.clear()

    def _refuse_conflicts(self) -> None:
        conflicts = [bindings[-1] for bindings in self._bindings.values() if not bindings[-1].stands()]
        if conflicts:
            found = ("nothing" if b.current() is MISSING else repr(b.current()) for b in conflicts)
            raise UndoConflict(
                compose(
                    "cannot undo: somebody patched over what was put in place",
                    target=", ".join(binding.target for binding in conflicts),
                    found=", ".join(found),
                    left="nothing was undone",
                    run="undo the other patch first, then call .undo() again",
                )
            )

    def _restore_copies(self) -> None:
        replaced = {
            id(function_of(binding.after)): binding
            for binding in self._all_bindings()
            if binding.origin and binding.before is not MISSING and binding.target in self._originals
        }
        for place, module, name, value in imports.names_of(replaced):
            binding = replaced[id(value)]
            if place.partition(".")[0] != binding.origin:
                setattr(module, name, self._originals[binding.target])


LEDGER = Ledger()


def current_machine() -> Machine:
    """The machine for which the patches are in place; the one at hand where they are not."""
    return LEDGER.machine or detect()


def original(target: str) -> Any:
    """What ``target`` (``"package.module:Class.name"``, or ``"aten::mm on MPS"``) was before it was patched.

    For replacements that call what they replace. Raises KeyError when it is not patched.
    """
    return LEDGER.original(target)
