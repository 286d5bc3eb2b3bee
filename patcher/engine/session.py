"""From a call of patch_for_mac() to patches in place: decide, set the environment, watch imports, guard the gate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

from patcher import environment
from patcher.changes import catalogue
from patcher.engine import imports
from patcher.engine.choice import one_for_each_target, switched_off
from patcher.engine.ledger import LEDGER, Entry
from patcher.engine.model import AnyChange, EnvDefault, Kernel, Patch, Shim, State, Substitute
from patcher.engine.targets import before_it_came, holders_of, installed_version, load, predates, refusal_of
from patcher.environment import Switches
from patcher.errors import GateClosed, InvalidSwitch, NoMps, PatcherError, RefusedChange, TooLate, compose
from patcher.macs import machine
from patcher.macs.machine import Machine
from patcher.ops.variants import names as variants

log = logging.getLogger("patcher")

GATE = "unsloth"
"""The package at whose end every required change must be in place."""

TRAINER = "transformers.trainer"
"""Where training without Unsloth begins: at its end the required changes of torch and transformers must be in place."""

_LARGE = ("torch", TRAINER, GATE)
"""What a script imports first of the libraries that take seconds: the garbage collector waits until they are there."""

_OF_A_MODULE = (Patch, Substitute, Kernel)


class Session:
    """One application of all changes to this process."""

    def __init__(
        self, here: Machine, changes: tuple[AnyChange, ...], *, strict: bool, without: Iterable[str] = ()
    ) -> None:
        known = one_for_each_target(changes)
        off = switched_off(known, without)
        self.machine = here
        self.strict = strict
        self.changes = tuple(change for change in known if change.key not in off)
        self._off = tuple(change for change in known if change.key in off)
        self._of_module = _by_module(self.changes)
        self._finder = imports.Finder()
        self._torch_is_complete = False

    def start(self) -> None:
        """Sets the environment, installs the finder and patches what is already imported.

        Raises:
            TooLate: unsloth is imported, or a module has already taken what a required change replaces.
            RefusedChange: a library that is already imported does not have the expected shape.

        Nothing is changed then.
        """
        copies = self._copies()
        self._refuse_if_too_late(copies)
        LEDGER.machine = self.machine
        LEDGER.register(self.changes)
        for change in self._off:
            LEDGER.mark(change, State.SKIPPED, "by the user")
        try:
            self._finder.install()
            LEDGER.on_undo(self._finder.remove)
            for change in self.changes:
                if isinstance(change, EnvDefault):
                    self._set_default(change)
                elif isinstance(change, Shim):
                    self._offer_shim(change)
            self._watch()
            self._catch_up()
            self._tell_of_copies(copies)
        except BaseException:
            LEDGER.undo()
            raise

    # -- environment and shims -------------------------------------------------------------------------------------

    def _set_default(self, change: EnvDefault) -> None:
        reason = change.skip(self.machine) if change.skip else None
        if reason is not None:
            LEDGER.mark(change, State.SKIPPED, reason)
            return
        value = (change.derive and change.derive(environment.snapshot())) or change.value
        if not environment.set_default(change.name, value):
            LEDGER.mark(change, State.SKIPPED, f"the user has set {change.name}={environment.value_of(change.name)}")
            return
        LEDGER.on_undo(lambda: environment.unset(change.name, value))
        if change.before is not None and imports.is_imported(change.before):
            detail = (
                f"{value}, but {change.before} was imported before patch_for_mac() and may have read it already: "
                f"move patch_for_mac() above `import {change.before}`"
            )
            log.warning("patcher: %s is set too late: %s", change.name, detail)
            LEDGER.mark_in_place(change, detail)
            return
        LEDGER.mark_in_place(change, value)

    def _offer_shim(self, change: Shim) -> None:
        reason = self._why_no_shim(change)
        if reason is not None:
            LEDGER.mark(change, State.SKIPPED, reason)
            return
        detail = "; ".join([f"stands in as {change.version}", *self._missed(change)])
        self._finder.shim(change)
        LEDGER.mark_in_place(change, detail)
        for other in self.changes:
            if isinstance(other, _OF_A_MODULE) and _root(other.module) == change.module:
                LEDGER.mark(other, State.SKIPPED, f"the shim stands in for {change.module}")

    def _why_no_shim(self, change: Shim) -> str | None:
        reason = change.skip(self.machine) if change.skip else None
        real = imports.real_install(change.module)
        return f"a real {change.module} is installed: {real}" if reason is None and real is not None else reason

    # -- imports ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._finder.after("torch", self._torch_is_there)
        self._finder.once("torch")
        for library in _LARGE:
            self._finder.around(library, imports.without_collecting)
        for change in self.changes:
            if isinstance(change, Substitute) and LEDGER.entry(change).state is State.PENDING:
                self._finder.around(change.module, self._conditions(change))
        for module in self._modules():
            if module != "torch":
                self._finder.after(module, self._module_is_there)
        self._finder.after(GATE, lambda _: self._check_gate())
        self._finder.after(TRAINER, lambda _: self._check_trainer())

    def _modules(self) -> list[str]:
        """The modules that some change names, once each, in the order of the changes; without those of a shim."""
        return [
            module
            for module, changes in self._of_module.items()
            if any(LEDGER.entry(change).state is not State.SKIPPED for change in changes)
        ]

    def _conditions(self, change: Substitute) -> Callable[[], AbstractContextManager[None]]:
        @contextmanager
        def around() -> Iterator[None]:
            if change.around is None or (change.skip and change.skip(self.machine)):
                yield
                return
            try:
                conditions = load(change.around)
            except PatcherError:
                raise
            except Exception as error:
                refusal = refusal_of(change, change.around, error)
                LEDGER.mark(change, State.REFUSED, str(refusal), error)
                raise refusal from error
            with conditions():
                yield

        return around

    def _torch_is_there(self, torch: ModuleType) -> None:
        """Starts the simulated device, then patches torch and those of its modules that its own body imported."""
        if self.machine.simulated:
            from patcher.simulator import start

            start(self.machine)
        self._torch_is_complete = True
        for name in self._modules():
            if _root(name) == "torch" and imports.is_imported(name):
                self._apply(imports.loaded(name))

    def _module_is_there(self, module: ModuleType) -> None:
        if _root(module.__name__) != "torch" or self._torch_is_complete:
            self._apply(module)

    def _apply(self, module: ModuleType) -> None:
        for change in self._of_module.get(module.__name__, ()):
            self._judge(LEDGER.apply(change, module))

    def _judge(self, entry: Entry) -> None:
        """Raises where what was refused is required, in the import that would train wrong.

        Torch is no such import: everybody imports it, also who does not train. The gates ask for its changes.
        """
        if entry.state is not State.REFUSED or not entry.change.required:
            return
        if not self.strict or _library_of(entry.change) == "torch":
            log.warning("patcher: %s", entry.detail)
        elif not imports.is_running(GATE):
            raise RefusedChange(entry.detail) from entry.error

    def _check_gate(self) -> None:
        self._close(GATE, self._absent())
        self._tell_of_requirements()

    def _check_trainer(self) -> None:
        """Without Unsloth, whose own gate would name the same."""
        if not imports.is_running(GATE):
            self._close(TRAINER, [e for e in self._absent() if _library_of(e.change) in ("torch", "transformers")])

    def _absent(self) -> list[Entry]:
        """The changes that are not in place and will not be, each with the reason."""
        for entry in LEDGER.entries():
            reason = self._why_never(entry)
            if reason is not None:
                LEDGER.mark(entry.change, *self._without_module(entry.change, reason))
        return [entry for entry in LEDGER.entries() if entry.state is State.REFUSED]

    def _close(self, gate: str, absent: list[Entry]) -> None:
        missing = [(entry.change.key, entry.detail) for entry in absent if entry.change.required]
        if missing and self.strict:
            raise GateClosed(gate, missing)
        for target, why in missing:
            log.warning("patcher: not in place: %s: %s", target, why)

    def _tell_of_requirements(self) -> None:
        """Says which libraries Unsloth was not made for: what it gets wrong with them it gets wrong on CUDA too."""
        from patcher.engine.requirements import faults, unmet

        others = frozenset(change.distribution for change in self.changes if isinstance(change, _OF_A_MODULE))
        for library in (GATE, "unsloth_zoo"):
            missing = unmet(library, others)
            if missing:
                log.warning(
                    "patcher: the installed %s asks for other versions: %s. With these it may train wrong, "
                    "on every device",
                    *(library, ", ".join(missing)),
                )
        for fault in faults():
            log.warning("patcher: on every device, with %s: %s", ", ".join(fault.versions), fault.what)

    def _without_module(self, change: AnyChange, reason: str) -> tuple[State, str]:
        version = installed_version(change.distribution)
        if predates(change, version):
            return State.SKIPPED, before_it_came(change, version)
        return State.REFUSED, reason

    def _why_never(self, entry: Entry) -> str | None:
        """Why a pending change will not come into place; None if its module can still be imported."""
        change = entry.change
        if not isinstance(change, _OF_A_MODULE) or entry.state is not State.PENDING:
            return None
        if imports.imported(change.module) is not None:
            return f"{change.module} was imported past patch_for_mac(): another import hook came first"
        if not imports.exists(change.module):
            return f"the installed {change.distribution} has no module {change.module}"
        return None

    # -- late calls ------------------------------------------------------------------------------------------------

    def _refuse_if_too_late(self, copies: list[tuple[Patch, str]]) -> None:
        for package in ("unsloth", "unsloth_zoo"):
            if imports.is_imported(package):
                raise TooLate(
                    compose(
                        f"patch_for_mac() came after `import {package}`",
                        target=package,
                        expected="patch_for_mac() before the first import of unsloth",
                        left="nothing changed",
                        run="move `from patcher import patch_for_mac; patch_for_mac()` to the top of the script",
                    )
                )
        needed = [f"{holder} holds {change.target}" for change, holder in copies if change.required]
        needed += [missed for change in self.changes if isinstance(change, Shim) for missed in self._missed(change)]
        if needed and self.strict:
            raise TooLate(
                compose(
                    "patch_for_mac() came after a module that had already taken what it replaces",
                    found="; ".join(needed),
                    left="nothing changed",
                    run="move patch_for_mac() above these imports, or go on without those changes: strict=False",
                )
            )

    def _copies(self) -> list[tuple[Patch, str]]:
        """Functions that a change would replace and that another module has already copied by name.

        The module that defines one is no copy where a change is for a module that takes it from there. Torch's own
        modules copy from each other while torch is imported, before any patch could be in place.
        """
        wanted: dict[int, str] = {}
        patches: dict[str, Patch] = {}
        defined: set[tuple[str, str]] = set()
        for change in self.changes:
            if not isinstance(change, Patch) or change.adds or "." in change.qualname or change.qualname == "__class__":
                continue  # the class of a module is everybody's ModuleType
            value = getattr(imports.imported(change.module), change.qualname, None)
            if callable(value):
                wanted[id(value)] = change.target
                patches[change.target] = change
                defined.add((change.target, f"{value.__module__}.{getattr(value, '__qualname__', '')}"))
        found = [copy for copy in dict.fromkeys(holders_of(wanted)) if copy not in defined] if wanted else []
        own = {"torch:torch", *(f"{_root(target)}:{_root(p.replacement)}" for target, p in patches.items())}
        return [(patches[target], holder) for target, holder in found if f"{_root(target)}:{_root(holder)}" not in own]

    def _missed(self, change: Shim) -> list[str]:
        """Modules that were imported when neither the shim nor a real package was there."""
        if self._why_no_shim(change) is not None:
            return []
        places = [target.partition(":") for target in change.missed_by]
        late = [module for module, _, name in places if getattr(imports.imported(module), name, change) is None]
        return [f"{module} was imported without {change.module}" for module in late]

    def _tell_of_copies(self, copies: list[tuple[Patch, str]]) -> None:
        for change, holder in copies:
            entry = LEDGER.entry(change)
            if entry.state in (State.APPLIED, State.UNREVIEWED):
                detail = f"{holder} had already copied the original and keeps it"
                LEDGER.mark(change, entry.state, f"{entry.detail}; {detail}" if entry.detail else detail)

    def _catch_up(self) -> None:
        """Patches what was imported before: the same order as if it were imported now."""
        torch = imports.imported("torch")
        if torch is not None:
            self._torch_is_there(torch)
        for name in self._modules():
            module = imports.imported(name)
            if module is not None and _root(name) != "torch":
                self._apply(module)


def _by_module(changes: Iterable[AnyChange]) -> dict[str, list[Patch | Substitute | Kernel]]:
    """The changes of every module that some change names, in their order."""
    found: dict[str, list[Patch | Substitute | Kernel]] = {}
    for change in changes:
        if isinstance(change, _OF_A_MODULE):
            found.setdefault(change.module, []).append(change)
    return found


def _library_of(change: AnyChange) -> str:
    """The top-level module that a change is for; "" for a variable."""
    return "" if isinstance(change, EnvDefault) else _root(change.module)


def _root(name: str) -> str:
    return name.partition(":")[0].partition(".")[0]


def why_not(here: Machine, device: str, switches: Switches) -> str | None:
    """Why nothing is to be patched on this machine; None where it is.

    Raises:
        InvalidSwitch: ``device`` is neither ``"auto"`` nor ``"mps"``.
        NoMps: mps was asked for and there is none.
    """
    if device not in ("auto", "mps"):
        raise InvalidSwitch(
            compose("unknown device", expected='"auto" or "mps"', found=repr(device), left="nothing changed")
        )
    wanted = device == "mps" or switches.force_mps
    if not here.mps:
        reason = f"no mps device here ({here})"
        if wanted:
            raise NoMps(
                compose(
                    "mps was asked for (device='mps' or UNSLOTH_FORCE_MPS=1), and this machine has no mps device",
                    found=str(here),
                    expected="an Apple silicon Mac with macOS 14 or later and torch, or a simulated one",
                    left="nothing changed",
                    run="on Linux: UNSLOTH_SIMULATE_MAC=1, or patch_for_mac(simulate='M3 Max 36GB')",
                )
            )
        return reason
    if here.cuda and not wanted:
        return "CUDA is present; UNSLOTH_FORCE_MPS=1 uses mps all the same"
    return None


def begin(
    *, device: str, simulate: str | None, strict: bool, switches: Switches, without: Iterable[str] = ()
) -> tuple[Session | None, str]:
    """Starts a session for this process, or says why there is nothing to do."""
    here = machine.detect(simulate)
    reason = why_not(here, device, switches)
    if reason is not None:
        surprising = here.simulated or here.system == "Darwin"
        log.log(logging.WARNING if surprising else logging.INFO, "patcher: nothing is patched: %s", reason)
        return None, reason
    variants.check()
    left_out = [name for name in without if variants.is_one(name)]
    changes = [name for name in (*without, *switches.without) if not variants.is_one(name)]
    session = Session(here, catalogue(), strict=strict, without=changes)
    warning = environment.watermark_warning()
    notes = [] if warning is None else [warning]
    if switches.mlx_quant:
        notes.append("UNSLOTH_ENABLE_MLX_QUANT is accepted, but MLX quantization is not available yet")
    session.start()
    LEDGER.on_undo(variants.forget)
    if left_out:
        LEDGER.on_undo(environment.leave_out(left_out))
    LEDGER.notes.extend(notes)
    for note in notes:
        log.warning("patcher: %s", note)
    return session, str(here)
