"""What stands in for triton, which has no macOS build."""

from __future__ import annotations

DISTRIBUTION = "triton"
