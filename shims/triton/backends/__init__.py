"""The backends that Triton can compile for: none, so that torch's ``has_triton()`` is False."""

from __future__ import annotations

from triton.backends import compiler as compiler

backends: dict[str, object] = {}
