"""A damaged or missing weight file is named before anything is loaded."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target="transformers.modeling_utils:_get_resolved_checkpoint_files",
        replacement="patcher.replacements.transformers.checkpoint_files:_get_resolved_checkpoint_files",
        needed_for=None,
        why="a truncated shard is reported as `incomplete metadata, file not fully covered`, without its name",
        upstream="transformers 5.17.0 modeling_utils.py: _load_pretrained_model opens all shards; safetensors 0.8.0",
        until="safetensors names the file",
    ),
)
