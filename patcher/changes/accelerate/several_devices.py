"""DeepSpeed, FSDP, Megatron-LM and fp8, asked for by plugin or environment, are errors that name the alternative."""

from __future__ import annotations

from functools import partial

from patcher.changes.accelerate import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_REPLACEMENTS = "patcher.replacements.accelerate.several_devices"
_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="the original asks to install packages that are written for CUDA, or fails in a collective that mps lacks",
    until="DeepSpeed, FSDP, Megatron-LM or fp8 runs on mps",
)

CHANGES: tuple[AnyChange, ...] = (
    *(
        _patch(
            target=f"accelerate.utils.dataclasses:{plugin}.__post_init__",
            replacement=f"{_REPLACEMENTS}:{plugin}.__post_init__",
            expects="(self)",
            upstream=source("accelerate/accelerator.py", "Accelerator.__init__"),
        )
        for plugin in ("DeepSpeedPlugin", "FullyShardedDataParallelPlugin", "MegatronLMPlugin")
    ),
    _patch(
        target="accelerate.state:AcceleratorState.__init__",
        replacement=f"{_REPLACEMENTS}:AcceleratorState.__init__",
        expects="(self, mixed_precision=None, cpu=False, dynamo_plugin=None, deepspeed_plugin=None, fsdp_plugin=None, "
        "torch_tp_plugin=None, megatron_lm_plugin=None, parallelism_config=None, _from_accelerator=False, **kwargs)",
        upstream=source("accelerate/state.py", "AcceleratorState.__init__"),
    ),
)
