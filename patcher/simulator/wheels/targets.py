"""What the changes to torch name in a release's Python text: a function's parameters, and names that it has by now.

A change is refused where its target has other parameters than it expects, so a new release is compared with the
catalogue before anybody has it installed.
"""

from __future__ import annotations

from pathlib import Path

from patcher.changes import catalogue
from patcher.drift import archives
from patcher.drift.compare import parameter_lists
from patcher.drift.names import Texts
from patcher.engine.model import Patch

LIBRARY = "torch"
PRESENT = "is there"


def patches() -> tuple[Patch, ...]:
    """The changes of torch's Python functions, and those that add a name."""
    found = (change for change in catalogue() if isinstance(change, Patch) and change.distribution == LIBRARY)
    return tuple(patch for patch in found if patch.adds or patch.expects is not None)


def read(wheel: Path) -> set[str]:
    """The lines of a wheel."""
    return of(archives.read(wheel, frozenset((LIBRARY,))))


def of(release: archives.Release) -> set[str]:
    """A line for each: ``torch.cuda:set_device (device)``, or ``torch.mps:Stream is there`` of a name to be added.

    What compiled code makes has no line.
    """
    texts = Texts((release,))
    return {line for patch in patches() for line in _lines(patch, texts)}


def _lines(patch: Patch, texts: Texts) -> list[str]:
    if patch.adds:
        return [f"{patch.target} {PRESENT}"] if texts.is_bound(patch.module, patch.qualname) else []
    return [f"{patch.target} {found}" for found in parameter_lists(patch, texts)]
