"""Runs scripts of examples/ one after the other in this process, each as ``python SCRIPT ARGUMENTS``. Run by the tests:

    python -m tests.e2e.examples OUT.json SCRIPT,ARGUMENT,... ...

OUT: for each script's name what it printed, the error that ended it or nothing, and the processor time that it took.
Importing Unsloth is most of what such a script costs; together they do it once.
"""

import contextlib
import io
import json
import runpy
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def run(script: str, arguments: list[str]) -> dict[str, Any]:
    """What a script printed to standard output, its traceback, and its seconds."""
    sys.argv, start = [script, *arguments], time.process_time()
    printed, error = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(script, run_name="__main__")
        except Exception:  # noqa: BLE001 - it is the result
            error = traceback.format_exc()
    return {"printed": printed.getvalue(), "error": error, "seconds": time.process_time() - start}


def main() -> None:
    out, *orders = sys.argv[1:]
    results = {}
    for order in orders:
        script, *arguments = order.split(",")
        results[Path(script).stem] = run(script, arguments)
    Path(out).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
