"""Runs a CUDA fine-tuning script, unmodified, on a Mac's GPU.

    from patcher import patch_for_mac
    patch_for_mac()
    import unsloth

Importing this package imports neither torch nor any library that it patches.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType

from patcher.engine.ledger import LEDGER
from patcher.engine.report import Report
from patcher.engine.session import Session, begin
from patcher.environment import names as _names
from patcher.environment import switches as _switches

__version__ = "0.1.0"
__all__ = ["Handle", "__version__", "patch_for_mac", "report"]


class Handle:
    """What `patch_for_mac` returns: the report of what was done, and its undoing.

    A context manager: leaving the outermost ``with`` undoes.
    """

    def __init__(self, session: Session | None, reason: str) -> None:
        self._session = session
        self._reason = reason
        self._entered = 0

    @property
    def active(self) -> bool:
        """Whether patches are in place."""
        return self._session is not None

    def report(self) -> Report:
        """Every change with its state; ``print()`` shows a table, ``.to_json()`` gives JSON."""
        return Report.of(LEDGER, None if self._session else self._reason)

    def undo(self) -> None:
        """Restores every patched attribute and variable, and stops watching imports.

        Raises UndoConflict, and changes nothing, if somebody patched over a change. A simulated device stays: torch
        cannot unregister one.
        """
        with _LOCK:
            if self._session is not None:
                LEDGER.undo()
                self._session = None
                self._reason = "undone"
                _HANDLES.clear()

    def __enter__(self) -> Handle:
        self._entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._entered == 0:
            self.undo()

    def __repr__(self) -> str:
        return f"<patch_for_mac: {'in place for ' if self.active else ''}{self._reason}>"


_LOCK = threading.RLock()
_HANDLES: list[Handle] = []
"""The handle of the session that is in place, if there is one."""


def patch_for_mac(
    *,
    device: str = "auto",
    simulate: str | bool | None = None,
    verbose: bool | None = None,
    strict: bool = True,
    without: str | Iterable[str] = (),
) -> Handle:
    """Makes Unsloth, TRL, PEFT, transformers and bitsandbytes train on this Mac's GPU; call it before importing them.

    Imports nothing heavy: variables are set and an import hook is installed, and each change is put in place when its
    target is imported. On a machine without an mps device nothing is changed. A second call changes nothing.

    Args:
        device: ``"auto"`` patches where there is an mps device and no CUDA; ``"mps"`` insists on mps.
        simulate: a Mac to simulate on Linux, such as ``"M3 Max 36GB"``, or True for the default one; None follows
            ``UNSLOTH_SIMULATE_MAC``.
        verbose: print every change as it is applied; None follows ``UNSLOTH_VERBOSE``.
        strict: raise when a change that training needs cannot be put in place; False reports it and goes on.
        without: changes that are left out, by the names that the report prints: a library (``"trl"``), a module
            (``"transformers.trainer"``), one target (``"torch.cuda:memory_summary"``), or a glob; a text holds one
            or several with commas between them. ``PATCHER_WITHOUT`` adds to them.

    Returns:
        A handle with ``.report()`` and ``.undo()``.

    Raises:
        NoMps: mps was asked for and there is no mps device.
        TooLate: unsloth, or a module that has copied what a change replaces, is already imported.
        RefusedChange: a library that is already imported does not have the expected shape.
        InvalidSwitch: an argument or environment switch has a value that is not accepted, or no change has a name that
            ``without`` gives.

        Nothing is changed then.
    """
    with _LOCK:
        if _HANDLES:
            return _HANDLES[0]
        asked = _switches()
        wanted = asked.simulate if simulate is None else simulate
        mac = "1" if wanted is True else wanted or None
        without = _names(without) if isinstance(without, str) else without
        with ExitStack() as undone:
            if asked.verbose if verbose is None else verbose:
                undone.callback(_log_to_stderr())
            session, reason = begin(device=device, simulate=mac, strict=strict, switches=asked, without=without)
            handle = Handle(session, reason)
            if session is not None:
                _HANDLES.append(handle)
                LEDGER.on_undo(undone.pop_all().close)
        return handle


def report() -> Report:
    """Every change of this process with its state; empty where `patch_for_mac` has not been called."""
    return _HANDLES[0].report() if _HANDLES else Report.of(LEDGER, "patch_for_mac() has not been called")


def _log_to_stderr() -> Callable[[], None]:
    """Shows every change as it is made; returns what ends that."""
    logger, handler = logging.getLogger("patcher"), logging.StreamHandler()
    before = logger.level
    if not logger.hasHandlers():
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def end() -> None:
        logger.setLevel(before)
        logger.removeHandler(handler)

    return end
