"""Small files in the cache folder: each is whole or not there, and there are never more than a number of them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

LOG = logging.getLogger(__name__)


def read(place: Path) -> Any:
    """What a file holds; None where there is none, or one that is damaged or was written under another name."""
    try:
        found = json.loads(place.read_text())
        return found["content"] if found["digest"] == _digest(place, found["content"]) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def write(place: Path, content: Any, most: int) -> None:
    """Keeps what JSON can hold in the file, and the ``most`` newest files of its folder.

    A process that reads meanwhile finds what was there before or what is there now. Where nothing can be written, as
    on a full disk, nothing is kept.
    """
    text = json.dumps({"content": content, "digest": _digest(place, content)}, indent=1)
    part = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=place.parent, suffix=".part")
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.replace(part, place)
        for old in sorted(place.parent.iterdir(), key=os.path.getmtime)[:-most]:
            old.unlink(missing_ok=True)
    except OSError as error:
        LOG.debug("%s is not kept: %s", place, error)
        if part is not None:
            with suppress(OSError):
                os.unlink(part)


def _digest(place: Path, content: Any) -> str:
    return hashlib.sha256(f"{place.name}\n{json.dumps(content)}".encode()).hexdigest()
