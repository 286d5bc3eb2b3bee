"""What changes in unsloth."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import Upstream

DISTRIBUTION = "unsloth"
REVIEWED = "==2026.10.9"
"""The version that was read and runs in the tests."""

source = partial(Upstream, "unslothai/unsloth")
"""A place in unsloth: ``source(path, symbol)``."""
