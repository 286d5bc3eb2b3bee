"""What a check is, and what comes of it."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from patcher.macs.machine import Machine

MPS = "mps"
"""What a check names in ``needs`` if it uses the device."""

REPORT_IT = (
    "do not trust training on this machine; update torch and macOS, run again, and report it to "
    "https://github.com/pytorch/pytorch/issues with this line"
)
INSTALL = "pip install 'patch-for-mac[unsloth]'"


class Status(str, enum.Enum):
    """How a check ended; the words that are printed."""

    OK = "ok"
    FAIL = "FAIL"
    SKIP = "skip"


class Failed(Exception):  # noqa: N818 - an outcome
    """The machine does not do what the check expects; the message says what it does."""


class Skipped(Exception):  # noqa: N818 - an outcome
    """The check does not apply here; the message says why."""


@dataclass(frozen=True)
class Result:
    """One line of the output.

    Attributes:
        section: ``"system"``, ``"kernels"`` and so on.
        name: what was checked.
        status: how it ended.
        detail: what was found, or why it was skipped.
        do: what to do about a failure; "" otherwise.
        seconds: how long it took.
    """

    section: str
    name: str
    status: Status
    detail: str = ""
    do: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**dataclasses.asdict(self), "status": self.status.value, "seconds": round(self.seconds, 3)}

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> Result:
        """From JSON."""
        return cls(**{**data, "status": Status(data["status"])})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Situation:
    """What a check may look at.

    Attributes:
        machine: the machine, real or simulated.
        full: whether the long checks run, and a missing library is a failure.
        work: a folder of this run, shared by the groups.
    """

    machine: Machine
    full: bool
    work: Path


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        section: where its line stands.
        name: what it checks.
        body: returns what it found; raises Failed or Skipped. Anything else that it raises is a failure too.
        do: what a user does when it fails.
        needs: libraries by import name, and `MPS`; where one is missing the check is skipped.
        full: whether it runs only with ``--full``.
    """

    section: str
    name: str
    body: Callable[[Situation], str]
    do: str = REPORT_IT
    needs: tuple[str, ...] = ()
    full: bool = False

    def run(self, situation: Situation) -> Result:
        """Runs it, and tells how it ended."""
        began = time.perf_counter()
        status, detail = self._outcome(situation)
        do = self.do if status is Status.FAIL else ""
        return Result(self.section, self.name, status, detail, do, time.perf_counter() - began)

    def _outcome(self, situation: Situation) -> tuple[Status, str]:
        missing = self.missing()
        if missing is not None:
            return (Status.FAIL if situation.full and missing != MPS else Status.SKIP), _absence(missing)
        try:
            return Status.OK, self.body(situation)
        except Skipped as reason:
            return Status.SKIP, str(reason)
        except Failed as failure:
            return Status.FAIL, str(failure)
        except Exception as error:  # noqa: BLE001 - a check fails by whatever it raises
            return Status.FAIL, f"{type(error).__name__}: {error}"

    def missing(self) -> str | None:
        """The first of its needs that is not there."""
        return next((need for need in self.needs if not _is_there(need)), None)


def _is_there(need: str) -> bool:
    if need != MPS:
        return importlib.util.find_spec(need) is not None
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.backends.mps.is_available()


def _absence(need: str) -> str:
    return "no mps device" if need == MPS else f"{need} is not installed"
