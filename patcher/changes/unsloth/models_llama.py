"""Language models load on mps in releases of Unsloth that know three kinds of GPUs by name."""

from __future__ import annotations

from patcher.changes.unsloth import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Substitute

CHANGES: tuple[AnyChange, ...] = (
    Substitute(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        module="unsloth.models.llama",
        constants={"DEVICE_TYPE": "cuda"},
        before="2026.8.1",
        needed_for="loading a model",
        why="the banner asks torch.cuda or torch.xpu and raises for another device, and torch.cuda answers for mps",
        upstream=source("unsloth/models/llama.py", "FastLlamaModel.from_pretrained"),
        until="no release before 2026.8.1 is to be used",
    ),
)
