"""Keeps account inside the process of the script, in a file that outlives it.

The file is written about once a second and at the end, so that there is something to say also about a process that
is killed, crashes or leaves through ``os._exit``.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from patcher.macs.mac import MacProfile
from patcher.trial import facts

FACTS = "facts.json"
CRASH = "crash.txt"
OUT_OF_MEMORY = "out of memory"


class Recorder:
    """The account of one script in its own process; forked children of the script leave it alone."""

    def __init__(self, folder: Path, mac: MacProfile, *, patched: bool) -> None:
        self._folder = folder
        self._mac = mac
        self._patched = patched
        self._process = os.getpid()
        self._begun = time.monotonic()
        self._writing = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="patcher-trial", daemon=True)
        self._device: facts.Watched | None = None
        self._ending: dict[str, Any] = {}
        self._steps = 0
        self._samples = facts.Samples()

    def begin(self) -> None:
        """From here on the account is kept up to date."""
        self._crash = (self._folder / CRASH).open("w")  # kept open: the crash handler writes to it
        faulthandler.enable(self._crash, all_threads=False)
        vars(os)["_exit"] = self._before_exit(os._exit)
        atexit.register(self._end)
        self._thread.start()

    def torch_is_there(self, _: ModuleType) -> None:
        """To be called when torch's body has run: starts the device where nobody has, and watches it."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self._device = facts.watch(self._mac)
        # Runs before what the device itself has registered (patcher/simulator/startup.py), which lifts the limit.
        atexit.register(self._end)
        register_optimizer_step_post_hook(self._step)
        self.write()

    def ended(self, code: object, error: BaseException | None) -> None:
        """Remembers how the script left: what it gave to ``sys.exit``, or the exception that it did not catch."""
        message = code if isinstance(code, str) else None
        self._ending = {"message": message, "exception": describe(error) if error is not None else None}
        if self._process == os.getpid():
            self.write()

    def write(self) -> None:
        """Brings the file up to date, whole or not at all."""
        with self._writing:
            found = self._account()
            temporary = self._folder / f"{FACTS}.new"
            temporary.write_text(json.dumps(found))
            temporary.replace(self._folder / FACTS)

    def _account(self) -> dict[str, Any]:
        account: dict[str, Any] = {
            "seconds": time.monotonic() - self._begun,
            "torch": self._device is not None,
            "ending": self._ending,
            "steps": self._steps,
            "patches": facts.patches() if self._patched else None,
        }
        if self._device is not None:
            account.update(self._device.account())
            self._samples.add(account["seconds"], account["memory"]["current"])
            account["samples"] = self._samples.points
        return account

    def _step(self, *_: object) -> None:
        self._steps += 1

    def _keep(self) -> None:
        pause = 0.5
        while not self._stopped.wait(pause):
            if self._process == os.getpid():
                before = time.monotonic()
                self.write()
                pause = max(0.5, 20 * (time.monotonic() - before))  # at most a twentieth of the time goes into it

    def _end(self) -> None:
        if self._process == os.getpid() and not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()
            self.write()

    def _before_exit(self, leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
        def _exit(status: int) -> NoReturn:
            if self._process == os.getpid():
                self.write()
            leave(status)

        return _exit


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as data: type, first line, the user's line that raised it, and whether the Mac's memory ran out."""
    from patcher.simulator.places import place_of

    trace = error.__traceback__
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    place = ""
    for found in reversed(frames):
        where, _ = place_of(found.tb_frame)
        if where.rpartition(":")[0] and found.tb_frame.f_code.co_filename.endswith(where.rpartition(":")[0]):
            place = f"{where.rpartition(':')[0]}:{found.tb_lineno}"
            break
    memory = next((str(cause) for cause in chain(error) if "MPS backend out of memory" in str(cause)), None)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "message": str(error), "place": place, OUT_OF_MEMORY: memory}


def chain(error: BaseException | None) -> list[BaseException]:
    """An exception and what it was raised from or while handling, the last one first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def run(start: Callable[[], None], recorder: Recorder) -> NoReturn:
    """Runs the script by ``start``, which ends in SystemExit, and remembers how it ended."""
    try:
        start()
    except SystemExit as end:
        context = end.__context__
        uncaught = context if context is not None and context is getattr(sys, "last_value", None) else None
        recorder.ended(end.code, uncaught)
        raise
    raise SystemExit(0)
