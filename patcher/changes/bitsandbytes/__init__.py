"""What changes in bitsandbytes."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import Upstream

DISTRIBUTION = "bitsandbytes"
REVIEWED = "==0.50.2"
"""The version that was read and runs in the tests."""

source = partial(Upstream, "bitsandbytes-foundation/bitsandbytes")
"""A place in bitsandbytes: ``source(path, symbol)``."""
