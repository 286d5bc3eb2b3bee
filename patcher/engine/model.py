"""What a change is: frozen data, read without importing torch or any library that it names.

Five kinds exist. Each says why it is needed, where upstream the reason can be read, and when it can go.
`imports` says when a change is due, `ledger` applies it, `report` prints it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patcher.macs.machine import Machine


class State(enum.Enum):
    """Where a change stands; the words that the report prints."""

    PENDING = "pending"
    """Its target has not been imported yet."""
    APPLIED = "applied"
    """In place, and the installed version is one that it was reviewed for."""
    UNREVIEWED = "unreviewed"
    """In place: the target has the expected shape, but the installed version has not been reviewed."""
    SKIPPED = "skipped"
    """Not needed here; the detail says why."""
    REFUSED = "refused"
    """Could not be put in place; the detail says why."""


@dataclass(frozen=True)
class Upstream:
    """Where upstream the reason for a change can be read.

    Attributes:
        repository: owner and name on GitHub, e.g. ``"pytorch/pytorch"``.
        path: the file, as it is installed (``"trl/trainer/utils.py"``); as it is in the repository where it is not.
        symbol: what to read there: a dotted name that a Python file defines or assigns, or a word of another file.
        issues: addresses of issues and pull requests about it.
        installed: False for a source that comes compiled only, which no test here can look into.
    """

    repository: str
    path: str
    symbol: str
    issues: tuple[str, ...] = ()
    installed: bool = True

    def __str__(self) -> str:
        return ", ".join((f"{self.repository} {self.path}: {self.symbol}", *self.issues))


EVERYWHERE = "everywhere"
"""What ``without=`` knows all changes by that mend something on every device."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What every change states about itself.

    Attributes:
        distribution: name on PyPI of the library that is changed, e.g. ``"unsloth_zoo"``.
        reviewed: PEP 440 specifier of the versions that somebody read, e.g. ``"==2026.10.9"``.
        why: what goes wrong on mps without the change: one sentence, which begins like the words of the report, in
            lower case, and has no full stop.
        upstream: where the reason can be read.
        until: the condition under which the change can be deleted, which somebody can check; in the same form.
        needed_for: what training cannot do without the change, or does wrong without a word; a gate (`session`) is
            closed then when the change was refused. None where training goes on without it, or says what it lacks.
        skip: given the machine, why the change is not needed on it, or None.
        everywhere: True where it mends what is wrong on every device, not what a Mac lacks.
        before: the first release of the library that does without the change; None where none does.
    """

    distribution: str
    reviewed: str
    why: str
    upstream: Upstream
    until: str
    needed_for: str | None
    skip: Callable[[Machine], str | None] | None = None
    everywhere: bool = False
    before: str | None = None

    @property
    def required(self) -> bool:
        """Whether training cannot do without the change."""
        return self.needed_for is not None

    @property
    def key(self) -> str:
        """The text that names the change in the report."""
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """What ``without=`` knows the change by: its target, each part of its path, its library, and its kind."""
        return (*self._names(), *((EVERYWHERE,) if self.everywhere else ()))

    def _names(self) -> tuple[str, ...]:
        return (self.key, self.distribution)


@dataclass(frozen=True, kw_only=True)
class Patch(Change):
    """One attribute of a foreign module or class gets another value.

    Attributes:
        target: ``"package.module:name"`` or ``"package.module:Class.name"``.
        replacement: ``"patcher.replacements.file:name"``; imported when the target's module has run.
        expects: the target's parameter list as upstream writes it, e.g. ``"(layernorm, X, gemma=False)"``;
            names, kinds and presence of defaults must agree. None where the target is no function.
        may_lack: optional parameters that earlier releases do not have yet; the replacement does without them.
        adds: True where upstream has no such name and the patch supplies it; an existing one is then kept.
        since: the release in which the target came, where it has not always been there: in an earlier one that lacks
            it there is nothing to change. None where every release has it.
    """

    target: str
    replacement: str
    expects: str | None = None
    may_lack: tuple[str, ...] = ()
    adds: bool = False
    since: str | None = None

    @property
    def key(self) -> str:
        """The target."""
        return self.target

    def _names(self) -> tuple[str, ...]:
        parts = self.qualname.split(".")
        classes = (f"{self.module}:{'.'.join(parts[:length])}" for length in range(len(parts) - 1, 0, -1))
        return (self.key, *classes, *_path(self.module), self.distribution)

    @property
    def module(self) -> str:
        """The dotted name of the module that holds the target."""
        return self.target.partition(":")[0]

    @property
    def qualname(self) -> str:
        """The target's dotted name within its module."""
        return self.target.partition(":")[2]


@dataclass(frozen=True, kw_only=True)
class Substitute(Change):
    """A foreign module's body runs under other conditions, because others copy its names as soon as it ends.

    Attributes:
        module: the dotted name of the module.
        around: ``"patcher.replacements.file:name"``, a context manager function without arguments; entered
            before the body and left after it, also when the body raises.
        constants: names of the module and the values that they have when the body has ended.
        references: likewise, with ``"package.module:name"`` for values that must not be imported before.
        may_lack: names that earlier releases do not have yet.
    """

    module: str
    around: str | None = None
    constants: Mapping[str, object] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    may_lack: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """``"module package.module"``."""
        return f"module {self.module}"

    def _names(self) -> tuple[str, ...]:
        return (self.key, *_path(self.module), self.distribution)


@dataclass(frozen=True, kw_only=True)
class Kernel(Change):
    """A torch operator gets a kernel for a dispatch key that has none, or another one than it has.

    Attributes:
        op: the operator with its overload, e.g. ``"aten::empty_strided"``.
        dispatch_key: e.g. ``"CUDA"``.
        replacement: ``"patcher.replacements.file:name"``.
        module: the module after whose import the operator exists.
        wraps: True where the operator works with the key already and the replacement calls what was there: its first
            parameter is the dispatch keys, which ``original("aten::mm on MPS").call_boxed(keys, ...)`` wants first.
    """

    op: str
    dispatch_key: str
    replacement: str
    module: str = "torch"
    wraps: bool = False

    @property
    def key(self) -> str:
        """``"aten::empty_strided on CUDA"``."""
        return f"{self.op} on {self.dispatch_key}"

    def _names(self) -> tuple[str, ...]:
        return (self.key, *dict.fromkeys((self.op, self.op.partition(".")[0])), self.distribution)


@dataclass(frozen=True, kw_only=True)
class Shim(Change):
    """A package of ours that answers an import where no usable one is installed.

    Attributes:
        module: the top-level import name, e.g. ``"triton"``; the files are in ``shims/<module>``.
        version: what ``importlib.metadata.version(distribution)`` answers for the shim.
        missed_by: ``"package.module:name"`` of names that are None where that module was imported without the package;
            a shim that comes after that is too late for them.
    """

    module: str
    version: str
    missed_by: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """``"shim triton"``."""
        return f"shim {self.module}"

    def _names(self) -> tuple[str, ...]:
        return (self.key, self.module)


@dataclass(frozen=True, kw_only=True)
class EnvDefault(Change):
    """An environment variable that is set where the user has set nothing.

    Attributes:
        name: the variable.
        value: its value while the patches are in place.
        derive: gives the value instead where it depends on other variables of the user's; None keeps ``value``.
        before: the module that reads the variable when it is imported; a default set after that has no effect.
    """

    name: str
    value: str
    derive: Callable[[Mapping[str, str]], str | None] | None = None
    before: str | None = None

    @property
    def key(self) -> str:
        """``"$PYTORCH_ENABLE_MPS_FALLBACK"``."""
        return f"${self.name}"

    def _names(self) -> tuple[str, ...]:
        return (self.key, self.name)


def _path(module: str) -> tuple[str, ...]:
    """The module, then the packages above it."""
    parts = module.split(".")
    return tuple(".".join(parts[:length]) for length in range(len(parts), 0, -1))


AnyChange = Patch | Substitute | Kernel | Shim | EnvDefault
