"""What changes in TRL."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import Upstream

DISTRIBUTION = "trl"
REVIEWED = "==1.15.0"
"""The version that was read and runs in the tests."""

source = partial(Upstream, "huggingface/trl")
"""A place in TRL: ``source(path, symbol)``."""
