"""``attn_implementation="flash_attention_2"`` is an error that names the alternative on a Mac."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target="transformers.modeling_utils:PreTrainedModel._flash_attn_import_error",
        replacement="patcher.replacements.transformers.modeling_utils:_flash_attn_import_error",
        expects="(self, flash_attn_version, general_availability_check, pkg_availability_check, supported_devices, "
        "custom_supported_devices=(), cuda_min_major_version=None)",
        needed_for=None,
        why="the original tells the user to install a package that cannot be installed on a Mac",
        upstream="transformers 5.17.0 modeling_utils.py: _flash_attn_can_dispatch calls it for flash_attention_2, 3, 4",
        until="FlashAttention has an mps build",
    ),
)
