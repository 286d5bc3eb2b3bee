"""What stands in for flash-attn, which is written for CUDA."""

from __future__ import annotations

DISTRIBUTION = "flash_attn"
