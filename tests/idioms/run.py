"""Runs the rows of table.toml as a script's own code on the simulated Mac; the outcomes go to ``argv[1]`` as JSON."""
# ruff: noqa: S102, BLE001 - each row is a program of its own, and what it raises is its outcome

import json
import sys
from pathlib import Path

from patcher import patch_for_mac

patch_for_mac(simulate="M1 8GB")

import torch  # noqa: E402

from tests.idioms.table import ROWS  # noqa: E402


def outcome(code: str) -> str:
    names = {"torch": torch, "__name__": "__main__"}
    try:
        exec(compile(code, "/home/me/train.py", "exec"), names)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return repr(names["result"])


Path(sys.argv[1]).write_text(json.dumps({row["write"]: outcome(row["code"]) for row in ROWS if "code" in row}))
