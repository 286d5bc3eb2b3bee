"""What TRL's asynchronous trainers say on a Mac. A worker and a weight transfer of the script's own are not touched."""

from __future__ import annotations

import importlib.util
from typing import Any

from patcher.engine.ledger import original
from patcher.errors import NotOnMac, compose


def worker_init(self: Any, *, queue_maxsize: int = 0, child_ready_timeout: int = 300, **loop_kwargs: Any) -> None:
    """The worker as upstream makes it, where vLLM can be imported: it speaks to a vLLM server through that.

    Raises:
        NotOnMac: vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise _refusal(self, "speaks to a vLLM server through vLLM's own package, which does not run on a Mac")
    start = original(f"trl.experimental.{_kind(self)}.async_rollout_worker:AsyncRolloutWorker.__init__")
    start(self, queue_maxsize=queue_maxsize, child_ready_timeout=child_ready_timeout, **loop_kwargs)


def transfer_init(self: Any, vllm_client: Any, weight_update_info: Any, weight_sync_timeout: int = 1800) -> None:
    """Raises NotOnMac: this client sends weights over NCCL."""
    raise _refusal(self, "sends weights to a vLLM server over NCCL, which a Mac does not have")


def _refusal(part: Any, reason: str) -> NotOnMac:
    trainer = "GRPOTrainer" if _kind(part) == "async_grpo" else "DistillationTrainer"
    return NotOnMac(
        compose(
            f"Async{trainer} {reason}",
            target=f"{type(part).__module__}.{type(part).__name__}",
            left="training has not started",
            run=f"use trl.{trainer}, which generates with the model itself",
        )
    )


def _kind(part: Any) -> str:
    """The package of TRL that the class, or one that it extends, is from."""
    modules = [base.__module__ for base in type(part).__mro__]
    return "async_grpo" if any("async_grpo" in module for module in modules) else "async_distillation"
