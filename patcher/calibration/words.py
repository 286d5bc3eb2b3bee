"""What errors say, without what tells whose machine it is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from patcher.calibration.parts import ROOT

_PATH = re.compile(r"https?://\S+|(?<![\w.)\]])(?:~|[A-Za-z]:)?(?:[/\\]+[^\s/\\'\"():,;<>]+)+[/\\]?")
"""An address of the web; or a path, from a slash at the beginning of a word on: ``/Users/somebody/x.py``, ``~/x``,
``C:\\x``; not ``aten/native``."""

LONGEST = 300


def without_paths(text: str) -> str:
    """The text with ``...`` and the last name for each absolute path: ``/Users/somebody/x.py`` is ``.../x.py``.

    A path ends at a space, but for the home, the environment and the checkout, which may have some.
    """
    for folder in (sys.prefix, str(ROOT), str(Path.home())):
        if len(folder) > 1:
            text = text.replace(folder, "~")
    return _PATH.sub(_last_name, text)


def _last_name(found: re.Match[str]) -> str:
    path = found[0]
    return path if path.startswith("http") else ".../" + re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def said(error: BaseException) -> str:
    """The first line of what an exception says, without paths."""
    return without_paths((str(error).strip().splitlines() or [""])[0])[:LONGEST]
