"""torchvision's Python part on Linux: PyPI's wheel holds a binary for CUDA, which torch for the CPU cannot load.

Image processors need the Python part only (resize, normalize). It imports as soon as the two operators of the binary
that it mentions are defined. The wheel lies beside the environment, out of the way of everything else; on a Mac it is
whole and installed as usual.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

FOLDER = Path(sys.prefix) / "torchvision"
_OPERATORS: list[object] = []


def load() -> None:
    """Makes ``import torchvision`` work in this process; torch must be patched already, if at all."""
    if sys.platform == "darwin":
        return
    if importlib.util.find_spec("torchvision") is None:
        sys.path.append(str(FOLDER))
        importlib.invalidate_caches()
    if importlib.util.find_spec("torchvision") is None:
        raise SystemExit(f"torchvision is not in {FOLDER}: make .venv/torchvision")
    # Else Unsloth refuses a torchvision whose binary does not load.
    os.environ["UNSLOTH_SKIP_TORCHVISION_CHECK"] = "1"
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _OPERATORS.append(library)
