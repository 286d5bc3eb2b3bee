"""TRL's asynchronous trainers say on a Mac that they need CUDA, and not that vLLM should be installed."""

from __future__ import annotations

from functools import partial

from patcher.changes.trl import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="the trainers ask for vLLM's package, and send whole weights to a server over NCCL, which no Mac has",
    upstream=source("trl/experimental/async_grpo/weight_transfer.py", "WeightTransferClient.__init__"),
    until="WeightTransferClient has a backend other than NCCL, and the rollout worker does not import vLLM",
)
_KINDS = ("async_grpo", "async_distillation")

CHANGES: tuple[AnyChange, ...] = (
    *(
        _patch(
            target=f"trl.experimental.{kind}.async_rollout_worker:AsyncRolloutWorker.__init__",
            replacement="patcher.replacements.trl.async_trainers:worker_init",
            expects="(self, *, queue_maxsize=0, child_ready_timeout=300, **loop_kwargs)",
        )
        for kind in _KINDS
    ),
    *(
        _patch(
            target=f"trl.experimental.{kind}.weight_transfer:WeightTransferClient.__init__",
            replacement="patcher.replacements.trl.async_trainers:transfer_init",
            expects="(self, vllm_client, weight_update_info, weight_sync_timeout=1800)",
        )
        for kind in _KINDS
    ),
)
