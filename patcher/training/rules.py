"""The rules for training arguments on mps, as data: which field, in which case, what becomes of it, and why.

Read against transformers 5.17.0, accelerate 1.15.0 and TRL 1.15.0. A rule for a field that a configuration class does
not have never fires, so one table serves every class. `patcher.training.arguments` evaluates it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from patcher.macs.machine import Machine
from patcher.training.optimizer_names import FUSED, REFUSED, REPLACED

Values = Mapping[str, Any]
When = Callable[[Values, Machine], bool]


@dataclass(frozen=True)
class Become:
    """The field gets another value: ``value``, or what ``value`` returns for all values if it is a function."""

    value: object


@dataclass(frozen=True)
class Refuse:
    """The configuration is not created; the message names ``instead``."""

    instead: str


@dataclass(frozen=True)
class Keep:
    """The user's value stays, and a note about it is recorded."""


@dataclass(frozen=True)
class Rule:
    """What becomes of one field in one case.

    Attributes:
        field: the field, e.g. ``"optim"``; ``"accelerator_config.non_blocking"`` is a field of a nested one.
        case: the case in words, as the documentation shows it.
        when: the case as a function of all values and the machine.
        then: what becomes of the field.
        reason: why.
    """

    field: str
    case: str
    when: When
    then: Become | Refuse | Keep
    reason: str


def name_of(optimizer: object) -> str:
    """The text of an optimizer that is an ``OptimizerNames`` member or a plain string."""
    return str(getattr(optimizer, "value", optimizer))


def _is(field: str, value: object) -> When:
    return lambda values, machine: bool(values.get(field) == value)


def _optimizer(name: str) -> When:
    return lambda values, machine: name_of(values.get("optim")) == name


def _set(field: str) -> When:
    return lambda values, machine: bool(values.get(field))


def _not_none(field: str) -> When:
    return lambda values, machine: values.get(field) is not None


def _above(field: str, limit: int) -> When:
    def exceeds(values: Values, machine: Machine) -> bool:
        value = values.get(field)
        return isinstance(value, (int, float)) and value > limit

    return exceeds


def torch_before(machine: Machine, *version: int) -> bool:
    """Whether the machine's torch is older than ``version``; False where it is unknown."""
    if machine.torch is None:
        return False
    numbers = machine.torch.partition("+")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit()) < version


def torch_may_be_before(machine: Machine, *version: int) -> bool:
    """Whether the machine's torch is older than ``version``, or unknown."""
    return machine.torch is None or torch_before(machine, *version)


def _fused_with_scaler(values: Values, machine: Machine) -> bool:
    return name_of(values.get("optim")) == FUSED and bool(values.get("fp16")) and torch_before(machine, 2, 13)


def _no_bf16(field: str) -> When:
    return lambda values, machine: bool(values.get(field)) and machine.macos is not None and machine.macos < (14, 0)


def _bf16_on_m1(values: Values, machine: Machine) -> bool:
    return bool(values.get("bf16")) and machine.generation == 1


def _compiles(values: Values) -> bool:
    chosen = (values.get("torch_compile_backend"), values.get("torch_compile_mode"))
    return bool(values.get("torch_compile")) or any(choice is not None for choice in chosen)


def _miscompiles(field: str) -> When:
    def differs(values: Values, machine: Machine) -> bool:
        return _compiles(values) and torch_before(machine, 2, 13) and bool(values.get(field))

    return differs


def _compiles_today(values: Values, machine: Machine) -> bool:
    return _compiles(values) and not torch_before(machine, 2, 13)


_CUDA_BACKENDS = frozenset(
    {"cudagraphs", "tensorrt", "torch_tensorrt", "onnxrt", "tvm", "ipex", "openxla", "hpu_backend"}
)


def _cuda_backend(values: Values, machine: Machine) -> bool:
    return values.get("torch_compile_backend") in _CUDA_BACKENDS


def _forks(values: Values, machine: Machine) -> bool:
    workers = values.get("dataloader_num_workers") or 0
    return workers > 0 and values.get("dataloader_multiprocessing_context") in (None, "fork")


def _forks_with(field: str) -> When:
    return lambda values, machine: _forks(values, machine) and bool(values.get(field))


def _maps_in_workers(values: Values, machine: Machine) -> bool:
    workers = values.get("dataset_num_proc") or 0
    return workers > (1 if "unsloth_num_chunks" in values else 0)


def as_dict(value: object) -> Mapping[str, Any]:
    """A field that transformers accepts as a dict or as its JSON text; {} for everything else."""
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    return value if isinstance(value, Mapping) else {}


def _offloads(values: Values, machine: Machine) -> bool:
    return bool(as_dict(values.get("gradient_checkpointing_kwargs")).get("offload"))


def _without_offload(values: Values) -> dict[str, Any]:
    options = as_dict(values["gradient_checkpointing_kwargs"])
    return {name: option for name, option in options.items() if name != "offload"}


def _several_devices(values: Values, machine: Machine) -> bool:
    plan = values.get("parallelism_config")
    return plan is not None and getattr(plan, "total_size", 2) > 1


_ONE_GPU = "a Mac has one GPU, and torch has no collectives for mps"
_ONE_PROCESS = "remove it and start one process with `python script.py`"
_FORK = "a forked process cannot use Metal and may hang or crash; transformers starts workers by fork on mps"
_UNIFIED = "memory is unified on a Mac: the copy would lie in the same memory"
_MISCOMPILED = "torch.compile gives wrong results on mps before torch 2.13 (pytorch#170360, #191976, #176436)"

OPTIMIZERS = (
    *(
        Rule("optim", f'"{name}"', _optimizer(name), Become(nearest.name), nearest.reason)
        for name, nearest in REPLACED.items()
    ),
    *(
        Rule("optim", f'"{name}"', _optimizer(name), Refuse(f'optim="{nearest.name}"'), nearest.reason)
        for name, nearest in REFUSED.items()
    ),
    Rule(
        "optim",
        f'"{FUSED}" with `fp16`, torch before 2.13',
        _fused_with_scaler,
        Become("adamw_torch"),
        "the fused mps kernel ignores the loss scale and overflowing steps before torch 2.13 (pytorch#186360)",
    ),
)

PRECISION = (
    *(
        Rule(
            field,
            "True, macOS before 14",
            _no_bf16(field),
            Become(False),
            "mps has bfloat16 from macOS 14 on; float32 has its range, float16 would overflow where bfloat16 does not",
        )
        for field in ("bf16", "bf16_full_eval")
    ),
    Rule(
        "bf16",
        "True on an M1",
        _bf16_on_m1,
        Keep(),
        "an M1 has no bfloat16 arithmetic: results are right, and fp16=True or float32 may be faster",
    ),
    Rule("tf32", "True", _is("tf32", True), Become(None), "TF32 is a mode of NVIDIA tensor cores"),
)

COMPILE = (
    *(
        Rule(field, "set, torch before 2.13", _miscompiles(field), Become(off), _MISCOMPILED)
        for field, off in (("torch_compile_backend", None), ("torch_compile_mode", None), ("torch_compile", False))
    ),
    Rule(
        "torch_compile_backend",
        ", ".join(f'"{name}"' for name in sorted(_CUDA_BACKENDS)),
        _cuda_backend,
        Become("inductor"),
        "that compiler does not generate code for mps; Inductor generates Metal",
    ),
    Rule(
        "torch_compile",
        "True, torch 2.13 or newer",
        _compiles_today,
        Keep(),
        "Inductor generates Metal from torch 2.13 on; one kernel that fails stops the whole graph",
    ),
    Rule(
        "use_liger_kernel",
        "True",
        _set("use_liger_kernel"),
        Become(False),
        "Liger's kernels run on mps as torch operators, slower than the modules that they replace, which compute the "
        "same numbers with more memory",
    ),
    Rule(
        "liger_kernel_config",
        "set",
        _set("liger_kernel_config"),
        Become(None),
        "there is nothing to configure without Liger's kernels",
    ),
)

DATA = (
    Rule(
        "dataloader_pin_memory",
        "True",
        _is("dataloader_pin_memory", True),
        Become(False),
        "mps has no pinned memory: memory is unified on a Mac",
    ),
    Rule(
        "accelerator_config.non_blocking",
        "True",
        _is("accelerator_config.non_blocking", True),
        Become(False),
        "a non-blocking copy to mps can read memory that was freed (pytorch#139550)",
    ),
    Rule(
        "dataloader_prefetch_factor",
        "set, with worker processes that would fork",
        _forks_with("dataloader_prefetch_factor"),
        Become(None),
        "there are no workers to prefetch, see dataloader_num_workers",
    ),
    Rule(
        "dataloader_persistent_workers",
        "True, with worker processes that would fork",
        _forks_with("dataloader_persistent_workers"),
        Become(False),
        "there are no workers to keep, see dataloader_num_workers",
    ),
    Rule(
        "dataloader_num_workers",
        'above 0, unless `dataloader_multiprocessing_context` is "spawn" or "forkserver"',
        _forks,
        Become(0),
        f'{_FORK}; to have workers, choose dataloader_multiprocessing_context="spawn"',
    ),
    Rule(
        "dataset_num_proc",
        "above 0; Unsloth's own 1, which means no workers, stays",
        _maps_in_workers,
        Become(None),
        "datasets starts its workers by fork, also on macOS and also a single one; forking is not safe there",
    ),
)

MEMORY = (
    Rule(
        "gradient_checkpointing_kwargs",
        '{"offload": True}',
        _offloads,
        Become(_without_offload),
        f"{_UNIFIED}; checkpointing stays on",
    ),
    Rule("activation_offloading", "True", _set("activation_offloading"), Become(False), _UNIFIED),
)

DISTRIBUTED = (
    Rule("fsdp", "set", _set("fsdp"), Refuse(_ONE_PROCESS), _ONE_GPU),
    Rule(
        "deepspeed",
        "set",
        _set("deepspeed"),
        Refuse("remove it; gradient_checkpointing=True, LoRA or load_in_4bit=True save memory on a Mac"),
        f"DeepSpeed is written for CUDA, and {_ONE_GPU}",
    ),
    Rule("parallelism_config", "for more than one device", _several_devices, Refuse(_ONE_PROCESS), _ONE_GPU),
    *(
        Rule(field, "set", _not_none(field), Refuse(_ONE_PROCESS), _ONE_GPU)
        for field in ("ddp_backend", "ddp_bucket_cap_mb", "ddp_static_graph")
    ),
    # False is no wish of the script's: sentence-transformers sets it in every configuration.
    Rule("ddp_broadcast_buffers", "True", _set("ddp_broadcast_buffers"), Refuse(_ONE_PROCESS), _ONE_GPU),
    Rule("local_rank", "above 0", _above("local_rank", 0), Refuse(_ONE_PROCESS), _ONE_GPU),
    Rule("world_size", "above 1", _above("world_size", 1), Refuse(_ONE_PROCESS), _ONE_GPU),
    Rule("tpu_num_cores", "set", _not_none("tpu_num_cores"), Refuse("remove it"), "a Mac has no TPU"),
    Rule(
        "use_vllm",
        "True",
        _set("use_vllm"),
        Refuse("use_vllm=False: the trainer then generates with the model itself"),
        "vLLM has no mps backend that a trainer can share its weights with",
    ),
)

RULES: tuple[Rule, ...] = (*OPTIMIZERS, *PRECISION, *COMPILE, *DATA, *MEMORY, *DISTRIBUTED)
