"""``attn_implementation="flash_attention_2"`` is an error that names the alternative on a Mac."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.modeling_utils:PreTrainedModel._flash_attn_import_error",
        replacement="patcher.replacements.transformers.modeling_utils:_flash_attn_import_error",
        expects="(self, flash_attn_version, general_availability_check, pkg_availability_check, supported_devices, "
        "custom_supported_devices=(), cuda_min_major_version=None)",
        needed_for=None,
        why="the original tells the user to install a package that cannot be installed on a Mac",
        upstream=source("transformers/modeling_utils.py", "PreTrainedModel._flash_attn_can_dispatch"),
        until="flash-attn has wheels for macOS",
    ),
)
