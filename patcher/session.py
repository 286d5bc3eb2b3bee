"""From a call of patch_for_mac() to patches in place: decide, set the environment, watch imports, guard the gate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType

from patcher import environment, imports, machine
from patcher.changes import catalogue
from patcher.environment import Switches
from patcher.errors import GateClosed, InvalidSwitch, NoMps, RefusedChange, TooLate, compose
from patcher.ledger import LEDGER, Entry, holders_of, key_of, load
from patcher.machine import Machine
from patcher.model import AnyChange, EnvDefault, Kernel, Patch, Shim, State, Substitute

log = logging.getLogger("patcher")

GATE = "unsloth"
"""The package at whose end every required change must be in place."""


class Session:
    """One application of all changes to this process."""

    def __init__(self, here: Machine, changes: tuple[AnyChange, ...], *, strict: bool) -> None:
        self.machine = here
        self.strict = strict
        self.changes = changes
        self._finder = imports.Finder()

    def start(self) -> None:
        """Sets the environment, installs the finder and patches what is already imported.

        Raises TooLate, with nothing changed, if a module has already taken what a required change replaces.
        """
        self._refuse_if_too_late()
        LEDGER.machine = self.machine
        LEDGER.register(self.changes)
        try:
            for change in self.changes:
                if isinstance(change, EnvDefault):
                    self._set_default(change)
                elif isinstance(change, Shim):
                    self._offer_shim(change)
            self._watch()
            self._finder.install()
            LEDGER.on_undo(self._finder.remove)
            self._catch_up()
        except BaseException:
            LEDGER.undo()
            raise

    # -- environment and shims -------------------------------------------------------------------------------------

    def _set_default(self, change: EnvDefault) -> None:
        reason = change.skip(self.machine) if change.skip else None
        if reason is not None:
            LEDGER.mark(change, State.SKIPPED, reason)
            return
        value = change.derive(environment.snapshot()) if change.derive else None
        value = change.value if value is None else value
        if not environment.set_default(change.name, value):
            LEDGER.mark(change, State.SKIPPED, f"the user has set {change.name}={environment.value_of(change.name)}")
            return
        LEDGER.on_undo(lambda: environment.unset(change.name, value))
        if change.before is not None and imports.is_imported(change.before):
            detail = f"{value}, but {change.before} was imported before patch_for_mac() and may have read it already"
            log.warning("patcher: %s is set too late: %s", change.name, detail)
            LEDGER.mark_in_place(change, detail)
            return
        LEDGER.mark_in_place(change, value)

    def _offer_shim(self, change: Shim) -> None:
        real = imports.real_install(change.module)
        if real is not None:
            LEDGER.mark(change, State.SKIPPED, f"a real {change.module} is installed: {real}")
            return
        self._finder.shim(change)
        LEDGER.mark_in_place(change, f"stands in as {change.version}")

    # -- imports ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._finder.after("torch", self._torch_is_there)
        for change in self.changes:
            if isinstance(change, Substitute):
                self._finder.around(change.module, self._conditions(change))
        for module in self._modules():
            if module != "torch":
                self._finder.after(module, self._module_is_there)
        self._finder.after(GATE, lambda _: self._check_gate())

    def _modules(self) -> list[str]:
        """The modules that some change names, once each, in the order of the changes."""
        named = (change.module for change in self.changes if isinstance(change, (Patch, Substitute, Kernel)))
        return list(dict.fromkeys(named))

    def _conditions(self, change: Substitute) -> Callable[[], AbstractContextManager[None]]:
        @contextmanager
        def around() -> Iterator[None]:
            if change.around is None:
                yield
            else:
                with load(change.around)():
                    yield

        return around

    def _torch_is_there(self, torch: ModuleType) -> None:
        """Starts the simulated device, then patches torch and those of its modules that its own body imported."""
        if self.machine.simulated:
            from patcher.simulator import start

            start(self.machine)
        for name in self._modules():
            if name.partition(".")[0] == "torch" and imports.is_imported(name):
                self._apply(imports.loaded(name))

    def _module_is_there(self, module: ModuleType) -> None:
        if module.__name__.startswith("torch.") and imports.is_running("torch"):
            return
        self._apply(module)

    def _apply(self, module: ModuleType) -> None:
        for change in self.changes:
            if isinstance(change, Substitute) and change.module == module.__name__:
                self._tell(LEDGER.substitute(change, module))
            elif isinstance(change, Kernel) and change.module == module.__name__:
                self._tell(LEDGER.register_kernel(change))
            elif isinstance(change, Patch) and change.module == module.__name__:
                self._tell(LEDGER.apply(change, module))

    def _tell(self, entry: Entry) -> None:
        log.info("patcher: %-10s %s %s", entry.state.value, key_of(entry.change), entry.detail)
        if entry.state is not State.REFUSED or not entry.change.required:
            return
        if not self.strict:
            log.warning("patcher: %s", entry.detail)
        elif not imports.is_running(GATE):
            raise RefusedChange(entry.detail)

    def _check_gate(self) -> None:
        refused = [entry for entry in LEDGER.entries() if self._stays_out(entry)]
        if refused and self.strict:
            raise GateClosed([(key_of(entry.change), entry.detail or "not applied") for entry in refused])

    def _stays_out(self, entry: Entry) -> bool:
        """Whether a required change is missing although its module has been imported."""
        if not entry.change.required:
            return False
        if entry.state is State.REFUSED:
            return True
        named = isinstance(entry.change, (Patch, Substitute, Kernel)) and imports.is_imported(entry.change.module)
        return entry.state is State.PENDING and named

    # -- late calls ------------------------------------------------------------------------------------------------

    def _refuse_if_too_late(self) -> None:
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
        holders = list(self._copies())
        if holders and self.strict:
            listed = "; ".join(f"{holder} holds {target}" for target, holder in holders)
            raise TooLate(
                compose(
                    "patch_for_mac() came after a module that had already copied what it replaces",
                    found=listed,
                    left="nothing changed",
                    run="move patch_for_mac() above these imports, or go on without those changes: strict=False",
                )
            )

    def _copies(self) -> Iterator[tuple[str, str]]:
        """Functions that a change would replace and that another module has already copied by name.

        Torch's own modules copy from each other while torch is imported, before any patch could be in place.
        """
        wanted: dict[int, str] = {}
        for change in self.changes:
            if not isinstance(change, Patch) or change.adds or "." in change.qualname:
                continue
            module = imports.imported(change.module)
            value = getattr(module, change.qualname, None)
            if callable(value) and change.required:
                wanted[id(value)] = change.target
        own = {target.partition(":")[0] for target in wanted.values()}
        for target, holder in holders_of(wanted, defined_in=own) if wanted else ():
            if not (_root(target) == "torch" == _root(holder)):
                yield target, holder

    def _catch_up(self) -> None:
        """Patches what was imported before: the same order as if it were imported now."""
        torch = imports.imported("torch")
        if torch is not None:
            self._torch_is_there(torch)
        for name in self._modules():
            module = imports.imported(name)
            if module is not None and name.partition(".")[0] != "torch":
                self._apply(module)


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


def begin(*, device: str, simulate: str | None, strict: bool, switches: Switches) -> tuple[Session | None, str]:
    """Starts a session for this process, or says why there is nothing to do."""
    here = machine.detect(simulate)
    reason = why_not(here, device, switches)
    if reason is not None:
        return None, reason
    warning = environment.watermark_warning()
    if warning is not None:
        log.warning("patcher: %s", warning)
    if switches.mlx_quant:
        log.warning("patcher: UNSLOTH_ENABLE_MLX_QUANT is accepted, but MLX quantization is not available yet")
    session = Session(here, catalogue(), strict=strict)
    session.start()
    return session, str(here)
