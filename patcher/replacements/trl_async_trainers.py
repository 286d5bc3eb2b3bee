"""What TRL's asynchronous trainers say on a Mac. A worker and a weight transfer of the script's own are not touched."""

from __future__ import annotations

from typing import Any

from patcher.errors import NotOnMac, compose


def worker_init(self: Any, *, queue_maxsize: int = 0, child_ready_timeout: int = 300, **loop_kwargs: Any) -> None:
    """Raises NotOnMac: this worker speaks to a vLLM server through vLLM's own package."""
    raise _refusal(self)


def transfer_init(self: Any, vllm_client: Any, weight_update_info: Any, weight_sync_timeout: int = 1800) -> None:
    """Raises NotOnMac: this client sends weights over NCCL."""
    raise _refusal(self)


def _refusal(part: Any) -> NotOnMac:
    trainer = "GRPOTrainer" if "grpo" in type(part).__module__ else "DistillationTrainer"
    return NotOnMac(
        compose(
            f"Async{trainer} sends weights to a vLLM server over NCCL, which a Mac does not have",
            target=f"{type(part).__module__}.{type(part).__name__}",
            left="training has not started",
            run=f"use trl.{trainer}, which generates with the model itself",
        )
    )
