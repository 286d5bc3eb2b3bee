"""Saves a folder over and over, killed at each file operation, then with a disk that fills at each. Run by the tests:

LD_PRELOAD=interpose.so python -m tests.checkpoints.kill_storage FOLDER

Prints one JSON object: for each scenario the number of operations and what was wrong afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from patcher.checkpoints import inspection, storage
from patcher.replacements.transformers.trainer_utils import get_last_checkpoint
from tests.interposer import FULL, KILL, Interposer

INTERPOSER = Interposer()
PARTS = ("one", "two", "three")


def save(parent: Path, step: int, value: str) -> None:
    """A checkpoint of three files that all hold the same value; another file of the script's own beside it."""
    with storage.saving(parent, f"checkpoint-{step}") as folder:
        written = folder / f"checkpoint-{step}"
        (written / "deep").mkdir(parents=True)
        for name in PARTS:
            (written / "deep" / name).write_text(value * 1000)
        (written / inspection.STATE).write_text("{}")


def holds(folder: str | None) -> str:
    """The value that a checkpoint holds; "none" without one, "mixed" where its files do not agree."""
    if folder is None:
        return "none"
    texts = {(Path(folder) / "deep" / name).read_text() for name in PARTS}
    text = texts.pop()
    return text[0] if not texts and text == text[0] * 1000 else "mixed"


def first(parent: Path) -> None:
    save(parent, 2, "n")


def next_one(parent: Path) -> None:
    save(parent, 4, "n")
    storage.remove(parent / "checkpoint-2")


def again(parent: Path) -> None:
    save(parent, 2, "n")


SCENARIOS = {"first": (first, False), "next": (next_one, True), "again": (again, True)}


def survives(parent: Path, scenario: str, operation: int) -> tuple[bool, list[str]]:
    """Whether the save ended before the operation, and what was wrong after a kill there."""
    write, old = SCENARIOS[scenario]
    if old:
        save(parent, 2, "o")
        (parent / "checkpoint-2" / "mine.txt").write_text("kept")
    child = os.fork()
    if child == 0:
        INTERPOSER.arm(KILL, operation)
        write(parent)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    ended = os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
    if not ended and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        return False, [f"{operation}: the child ended with {status}"]
    wrong = []
    last = get_last_checkpoint(str(parent))
    if holds(last) not in ({"n"} if ended else {"o", "n"} if old else {"none", "n"}):
        wrong.append(f"{operation}: {last} holds {holds(last)}")
    if scenario == "again" and not (parent / "checkpoint-2" / "mine.txt").exists():
        wrong.append(f"{operation}: the file of somebody else is gone")
    save(parent, 6, "l")
    left = [path.name for path in parent.iterdir() if path.name.startswith("_")]
    if left or holds(get_last_checkpoint(str(parent))) != "l":
        wrong.append(f"{operation}: left over: {left}")
    return ended, wrong


def is_full(parent: Path, operation: int) -> tuple[bool, list[str]]:
    """Whether the save ended before the disk was full, and what was wrong after it."""
    save(parent, 2, "o")
    INTERPOSER.arm(FULL, operation)
    error = None
    try:
        save(parent, 4, "n")
    except OSError as caught:
        error = caught
    INTERPOSER.disarm()
    wrong = []
    names = sorted(path.name for path in parent.iterdir())
    if names != (["checkpoint-2"] if error else ["checkpoint-2", "checkpoint-4"]):
        wrong.append(f"{operation}: {names} after {error!r}")
    if holds(get_last_checkpoint(str(parent))) != ("o" if error else "n"):
        wrong.append(f"{operation}: the last checkpoint is not whole")
    return error is None, wrong


def main(folder: str) -> None:
    result: dict[str, dict[str, object]] = {}
    for scenario in (*SCENARIOS, "full"):
        wrong: list[str] = []
        for operation in range(1, 1000):
            parent = Path(folder) / "run"
            shutil.rmtree(parent, ignore_errors=True)
            parent.mkdir(parents=True)
            done, found = is_full(parent, operation) if scenario == "full" else survives(parent, scenario, operation)
            wrong += found
            if done:
                break
        result[scenario] = {"operations": operation - 1, "wrong": wrong}
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
