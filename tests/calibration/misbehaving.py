"""A part of a calibration whose cases do what a device may do."""

from __future__ import annotations

import os
import time


def cases() -> list[str]:
    return ["works", "raises", "crashes", "hangs", "prints", "works again"]


def run(case: str) -> dict[str, object]:
    if case == "raises":
        raise ValueError(f"in {os.path.expanduser('~')}/secret/file.py\nsecond line")
    if case == "crashes":
        os.abort()
    if case == "hangs":
        time.sleep(60)
    os.system("echo noise")
    return {"outcome": "ok", "process": os.getpid(), "variables": sorted(os.environ)}
