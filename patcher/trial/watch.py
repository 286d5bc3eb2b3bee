"""Runs a script in a process of its own and outlives it, so that there is a verdict however it ends."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from patcher.engine import imports
from patcher.macs.mac import MacProfile
from patcher.trial.record import CRASH, FACTS, Recorder, run

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SI_USER = (0, -6)
"""si_code of a signal that a process sent (SI_USER, SI_TKILL); one of the terminal goes to both processes by itself."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class End:
    """How the script's process ended, as the operating system tells it.

    Attributes:
        code: exit code, None where a signal ended it.
        signal: that signal's number.
        seconds: how long it ran.
        peak_rss: the most host memory that it held, in bytes.
        facts: the text of the account that it kept, "" if it came to none.
        crash: what Python's fault handler wrote, "" if nothing.
    """

    code: int | None
    signal: int | None
    seconds: float
    peak_rss: int
    facts: str
    crash: str

    @property
    def exit_code(self) -> int:
        """As a shell has it: 128 and the signal's number where one ended the process."""
        return self.code if self.code is not None else 128 + (self.signal or 0)


def run_apart(mac: MacProfile, prepare: Callable[[], None], program: Callable[[], None], *, patched: bool) -> End:
    """Runs ``program`` in a fork of this process, and waits for its end.

    Args:
        mac: the Mac to simulate.
        prepare: called there first: sets the environment and patches.
        program: runs the script as python does; ends in SystemExit.
        patched: whether ``prepare`` patches.
    """
    folder = Path(tempfile.mkdtemp(prefix="patcher-trial-"))
    begun = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    process = os.fork()
    if process == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _be_the_script(folder, mac, prepare, program, patched)
    try:
        status, peak = _wait(process)
        return End(
            code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            seconds=time.monotonic() - begun,
            peak_rss=peak * 1024,
            facts=_content(folder / FACTS),
            crash=_content(folder / CRASH),
        )
    finally:
        shutil.rmtree(folder)
        _drop_pending()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_the_script(
    folder: Path, mac: MacProfile, prepare: Callable[[], None], program: Callable[[], None], patched: bool
) -> NoReturn:
    # The script does not outlive us: nobody would stop it or tell of it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    prepare()
    recorder = Recorder(folder, mac, patched=patched)
    # Installed after the patches' own finder, and so before it in the search: torch is patched when this is called.
    finder = imports.Finder()
    finder.after("torch", recorder.torch_is_there)
    finder.once("torch")
    finder.install()
    recorder.begin()
    run(program, recorder)


def _wait(process: int) -> tuple[int, int]:
    """(wait status, peak memory in KiB) of the process; passes on the signals that others send to this one."""
    while True:
        ended, status, usage = os.wait4(process, os.WNOHANG)
        if ended:
            return status, usage.ru_maxrss
        found = signal.sigtimedwait({*_PASSED_ON, signal.SIGCHLD}, 1.0)
        if found is not None and found.si_signo in _PASSED_ON and found.si_code in _SI_USER:
            os.kill(process, found.si_signo)


def _drop_pending() -> None:
    """Forgets signals that came when the script had ended: they were for it, and its verdict is still to be told."""
    while signal.sigtimedwait({*_PASSED_ON, signal.SIGCHLD}, 0) is not None:
        pass


def _content(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def arguments_of(target: str, arguments: Sequence[str], module: bool) -> str:
    """The script's command line, for the verdict."""
    import shlex

    return shlex.join([*(["-m"] if module else []), target, *arguments])
