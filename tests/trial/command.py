"""``python -m patcher simulate`` in a process of its own, and what it printed."""

from __future__ import annotations

import json
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.process import run_python

FIRST = "patcher: a simulated "
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1"}


@dataclass(frozen=True)
class Done:
    """A trial that has ended.

    Attributes:
        code: the exit code.
        stdout: what the script printed.
        stderr: what the script, python and the libraries printed to it, without the verdict.
        verdict: the verdict's text.
        data: the JSON.
    """

    code: int
    stdout: str
    stderr: str
    verdict: str
    data: dict[str, Any]


def write(folder: Path, body: str, name: str = "script.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(body))
    return path


def simulate(folder: Path, *arguments: str, stdin: str = "", timeout: int = 300) -> Done:
    """Runs it in ``folder``; the last lines of stderr are the verdict."""
    command = ("-m", "patcher", "simulate", "--json", "trial.json", *arguments)
    done = run_python(*command, cwd=folder, stdin=stdin, check=False, timeout=timeout, **ENVIRONMENT)
    return read(folder, done.returncode, done.stdout, done.stderr)


def read(folder: Path, code: int, stdout: str, stderr: str) -> Done:
    before, found, verdict = stderr.rpartition(FIRST)
    assert found, stderr
    return Done(code, stdout, before, found + verdict, json.loads((folder / "trial.json").read_text()))


def python(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The same under plain python."""
    return run_python(*arguments, cwd=folder, stdin=stdin, check=False, timeout=300, **ENVIRONMENT)
