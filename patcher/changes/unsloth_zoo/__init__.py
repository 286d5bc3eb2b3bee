"""What changes in unsloth_zoo."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import Upstream

DISTRIBUTION = "unsloth_zoo"
REVIEWED = "==2026.10.9"
"""The version that was read and runs in the tests."""

source = partial(Upstream, "unslothai/unsloth-zoo")
"""A place in unsloth_zoo: ``source(path, symbol)``."""
