"""What changes in torch."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import Upstream

DISTRIBUTION = "torch"
REVIEWED = ">=2.13.0,<=2.14.1"
"""2.13.0 runs in the tests, with simulated Macs of both; 2.14.1 has run them once (docs/versions.md)."""

source = partial(Upstream, "pytorch/pytorch")
"""A place in torch: ``source(path, symbol)``."""

native = partial(source, installed=False)
"""A place in the C++ of torch, of which no source is installed."""


def issues(*numbers: int) -> tuple[str, ...]:
    """Addresses of issues and pull requests of torch; one leads to the other."""
    return tuple(f"https://github.com/pytorch/pytorch/issues/{number}" for number in numbers)
