"""What accelerate says on a Mac to what needs several GPUs, or CUDA's number formats."""

from __future__ import annotations

from typing import Any

from patcher import environment
from patcher.engine.ledger import original
from patcher.errors import NotOnMac, compose

_ALONE = "remove it and start one process with `python script.py`"


class DeepSpeedPlugin:
    """``DeepSpeedPlugin(...)``, and the one that ACCELERATE_USE_DEEPSPEED=true makes."""

    def __post_init__(self) -> None:
        """Raises NotOnMac, except on the CPU."""
        instead = "remove it; gradient_checkpointing=True, LoRA or load_in_4bit=True save memory on a Mac"
        _refuse("DeepSpeed", "DeepSpeed is written for CUDA, and a Mac has one GPU", instead)
        original("accelerate.utils.dataclasses:DeepSpeedPlugin.__post_init__")(self)


class FullyShardedDataParallelPlugin:
    """``FullyShardedDataParallelPlugin(...)``, and the one that ACCELERATE_USE_FSDP=true makes."""

    def __post_init__(self) -> None:
        """Raises NotOnMac, except on the CPU."""
        _refuse("FSDP", "a Mac has one GPU, and torch has no collectives for mps", _ALONE)
        original("accelerate.utils.dataclasses:FullyShardedDataParallelPlugin.__post_init__")(self)


class MegatronLMPlugin:
    """``MegatronLMPlugin(...)``, and the one that ACCELERATE_USE_MEGATRON_LM=true makes."""

    def __post_init__(self) -> None:
        """Raises NotOnMac, except on the CPU."""
        _refuse("Megatron-LM", "Megatron-LM is written for CUDA, and a Mac has one GPU", _ALONE)
        original("accelerate.utils.dataclasses:MegatronLMPlugin.__post_init__")(self)


class AcceleratorState:
    """``Accelerator(mixed_precision="fp8")``, and ACCELERATE_MIXED_PRECISION=fp8."""

    def __init__(
        self,
        mixed_precision: str | None = None,
        cpu: bool = False,
        dynamo_plugin: Any = None,
        deepspeed_plugin: Any = None,
        fsdp_plugin: Any = None,
        torch_tp_plugin: Any = None,
        megatron_lm_plugin: Any = None,
        parallelism_config: Any = None,
        _from_accelerator: bool = False,
        **kwargs: Any,
    ) -> None:
        """Raises NotOnMac for fp8, except on the CPU; any other precision is upstream's."""
        wanted = mixed_precision or environment.value_of("ACCELERATE_MIXED_PRECISION")
        if wanted == "fp8" and not cpu:
            _refuse("mixed_precision='fp8'", "Apple's GPUs do not compute in float8", "mixed_precision='bf16'")
        original("accelerate.state:AcceleratorState.__init__")(
            self, mixed_precision, cpu, dynamo_plugin, deepspeed_plugin, fsdp_plugin, torch_tp_plugin,
            megatron_lm_plugin, parallelism_config, _from_accelerator, **kwargs,
        )  # fmt: skip


def _refuse(what: str, reason: str, instead: str) -> None:
    if (environment.value_of("ACCELERATE_USE_CPU") or "").lower() in ("1", "true", "yes", "y", "t", "on"):
        return
    raise NotOnMac(compose(f"{what}: {reason}", left="no Accelerator was made", run=instead))
