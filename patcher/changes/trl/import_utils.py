"""Older TRL with newer transformers: packages that are not installed do not count as installed."""

from __future__ import annotations

from patcher.changes.trl import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_ASKED = ("deepspeed", "joblib", "llm_blender", "math_verify", "mergekit", "vllm_ascend", "weave")
"""Packages that trainers import where they count as installed."""

CHANGES: tuple[AnyChange, ...] = tuple(
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=f"trl.import_utils:is_{package}_available",
        replacement=f"patcher.replacements.trl.import_utils:is_{package}_available",
        expects="()",
        before="0.29",
        needed_for=None,
        everywhere=True,
        why="transformers 5 answers with a pair, which counts as yes: DPO and others then import what is not there",
        upstream=source("trl/import_utils.py", "_is_package_available"),
        until="no TRL before 0.29 is to be used",
    )
    for package in _ASKED
)
