"""What changes in transformers."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import Upstream

DISTRIBUTION = "transformers"
REVIEWED = "==5.17.0"
"""The version that was read and runs in the tests."""

source = partial(Upstream, "huggingface/transformers")
"""A place in transformers: ``source(path, symbol)``."""
