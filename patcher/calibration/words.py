"""What errors say, without what tells whose machine it is."""

from __future__ import annotations

import re

_PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\'\"():,;<>]+)+[/\\]?")
"""From a slash at the beginning of a word on: ``/Users/somebody/x.py``, ``~/x``, ``C:\\x``; not ``aten/native``."""

LONGEST = 300


def without_paths(text: str) -> str:
    """The text with ``...`` and the last name for each absolute path: ``/Users/somebody/x.py`` is ``.../x.py``."""
    return _PATH.sub(lambda match: ".../" + re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], text)


def said(error: BaseException) -> str:
    """The first line of what an exception says, without paths."""
    return without_paths((str(error).strip().splitlines() or [""])[0])[:LONGEST]
