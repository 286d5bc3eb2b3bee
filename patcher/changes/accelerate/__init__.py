"""What changes in accelerate."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import Upstream

DISTRIBUTION = "accelerate"
REVIEWED = "==1.15.0"
"""The version that was read and runs in the tests."""

source = partial(Upstream, "huggingface/accelerate")
"""A place in accelerate: ``source(path, symbol)``."""
