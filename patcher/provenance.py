"""Whose code it is: the user's own (a script, a notebook, modules beside them) or a library's."""

from __future__ import annotations

import functools
import os
import sysconfig
from pathlib import Path
from types import FrameType

from patcher import environment

_OURS = f"{Path(__file__).resolve().parent}/"
_PACKAGES = ("/site-packages/", "/dist-packages/")
_DOWNLOADED_OR_GENERATED = ("unsloth_compiled_cache", "/transformers_modules/", "/datasets_modules/", "torchinductor_")
"""Folders of code that nobody in front of the screen has written: Unsloth's compiled trainers, modules that
transformers and datasets fetch from a hub, and what torch.compile writes. Unsloth's may have another name."""


def _roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    named = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib") if key in paths}
    return tuple(f"{path}/" for path in sorted(named | {str(Path(path).resolve()) for path in named}))


ROOTS = _roots()
"""Where Python and the installed packages are, each with a slash at its end."""


@functools.cache
def is_library(file: str) -> bool:
    """Whether a code's file belongs to an installed package, to Python, to us, or to nothing on disk."""
    return (
        file.startswith((*ROOTS, _OURS, "<"))
        or any(folder in file for folder in _PACKAGES)
        or any(folder in file for folder in _DOWNLOADED_OR_GENERATED)
        or os.path.realpath(os.path.dirname(file)) in environment.compile_folders()
    )


def is_users(frame: FrameType, libraries: frozenset[str]) -> bool:
    """Whether a frame runs the user's own code.

    Code without a file (``python -c``, standard input, a cell, what a dataclass generates) belongs to the module whose
    globals it has: to the user where that is ``__main__`` or a module of the user's; without a module to nobody.

    Args:
        libraries: top-level packages that are libraries wherever they are, in an editable install too.
    """
    names = frame.f_globals
    name, file = str(names.get("__name__")), frame.f_code.co_filename
    if file.startswith("<"):
        file = names.get("__file__") or ""
    if not file or file.startswith("<"):
        return name == "__main__"
    return not is_library(file) and name.partition(".")[0] not in libraries
