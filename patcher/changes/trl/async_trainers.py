"""TRL's asynchronous trainers say on a Mac that they need CUDA, and not that vLLM should be installed."""

from __future__ import annotations

from functools import partial

from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution="trl",
    reviewed=">=1.15,<1.16",
    needed_for=None,
    why="the trainers ask for vLLM's package, and send whole weights to a server over NCCL, which no Mac has",
    upstream="trl 1.15.0 experimental/async_grpo and async_distillation: async_rollout_worker.py, weight_transfer.py",
    until="weights reach a vLLM server without NCCL, and vLLM is not imported for it",
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
