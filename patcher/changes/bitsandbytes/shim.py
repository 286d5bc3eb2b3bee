"""``import bitsandbytes`` works where it is not installed, so that 16-bit training does not need it."""

from __future__ import annotations

from patcher.changes.bitsandbytes import DISTRIBUTION
from patcher.changes.unsloth_zoo import source
from patcher.engine.model import Shim

_VERSION = "0.50.2+patcher"
"""Of the shim, not of the library: the release whose names it has, marked as ours."""

CHANGES: tuple[Shim, ...] = (
    Shim(
        distribution=DISTRIBUTION,
        reviewed=f"=={_VERSION}",
        module="bitsandbytes",
        version=_VERSION,
        needed_for=None,
        why="scripts and libraries import it for 8-bit optimizers and 4-bit layers that a 16-bit run does not use",
        upstream=source("unsloth_zoo/saving_utils.py", "bnb"),
        until="every library that the examples import guards its import of bitsandbytes",
    ),
)
