"""A damaged or missing weight file is named before anything is loaded."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.modeling_utils:_get_resolved_checkpoint_files",
        replacement="patcher.replacements.transformers.checkpoint_files:_get_resolved_checkpoint_files",
        needed_for=None,
        everywhere=True,
        why="a truncated shard is reported as `incomplete metadata, file not fully covered`, without its name",
        upstream=source("transformers/modeling_utils.py", "PreTrainedModel._load_pretrained_model"),
        until="the error of safetensors names the file",
    ),
)
