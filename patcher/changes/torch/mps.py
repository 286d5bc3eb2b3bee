"""What is asked of a device's module is answered for mps, and has one answer, whoever asks.

A CUDA script asks ``torch.cuda``; Unsloth asks the module of its device type, which is ``torch.mps``, and its own two
``device_type`` modules. `QUESTIONS` is the table; the answers are in `patcher.replacements.torch.mps`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.changes.unsloth import source as unsloth
from patcher.engine.model import Patch

CUDA, MPS = "torch.cuda", "torch.mps"
MEMORY, RANDOM = "torch.cuda.memory", "torch.cuda.random"
UNSLOTH, ZOO = "unsloth.device_type", "unsloth_zoo.device_type"
BOTH = (CUDA, MPS)
ALLOCATOR = (CUDA, MEMORY)
GENERATOR = (CUDA, RANDOM)
_ANSWERS = "patcher.replacements.torch.mps"


@dataclass(frozen=True)
class Question:
    """One row of the table.

    Attributes:
        name: of the question where it is asked, and of the answer.
        asked: the modules that get the answer: `CUDA`, `UNSLOTH` and `ZOO` have one for CUDA, `MPS` has none; `MEMORY`
            and `RANDOM` are where `CUDA` has its own from, and where a script may ask too.
        expects: the parameters of the answer for CUDA; None where it is a class.
        needed_for: what training cannot do where `MPS` or `ZOO` lacks it.
        since: the release of unsloth_zoo in which the question came; None where every one has it.
    """

    name: str
    asked: tuple[str, ...]
    expects: str | None = None
    needed_for: str | None = None
    since: str | None = None

    @property
    def answer(self) -> str:
        """Where the answer is defined."""
        return f"{_ANSWERS}:{self.name}"


_UNSLOTH_ASKS = "training through Unsloth, which asks for it"
_DEVICE, _NOTHING = "(device=None)", "()"

QUESTIONS = (
    # the device
    Question("device", BOTH, needed_for=_UNSLOTH_ASKS),
    Question("current_device", BOTH, _NOTHING, _UNSLOTH_ASKS),
    Question("set_device", BOTH, "(device)"),
    Question("get_device_name", BOTH, _DEVICE),
    Question("get_device_capability", BOTH, _DEVICE),
    Question(
        "get_device_properties", BOTH, _DEVICE, "loading a model through Unsloth, which asks for the device's memory"
    ),
    Question("is_bf16_supported", BOTH, "(including_emulation=True)"),
    Question("is_initialized", (MPS,)),
    Question(
        "_initialized",
        (MPS,),
        needed_for="dropout under gradient checkpointing: the mask of the recomputation is another one without a word",
    ),
    Question("_lazy_init", (CUDA,), _NOTHING),
    Question("get_device_type", (UNSLOTH, ZOO), _NOTHING),
    Question("get_device_count", (UNSLOTH, ZOO), _NOTHING),
    Question("get_device_stats", (UNSLOTH,), _NOTHING),
    Question(
        "device_is_bf16_supported",
        (ZOO,),
        _NOTHING,
        needed_for="bf16: half of Unsloth takes fp16, and a product of the two is refused",
        since="2026.5.1",
    ),
    # its queue
    Question("Stream", BOTH),
    Question("stream", BOTH, "(stream)"),
    Question("set_stream", BOTH, "(stream)"),
    Question("Event", (CUDA,)),
    Question("current_stream", BOTH, _DEVICE),
    Question("default_stream", BOTH, _DEVICE),
    Question("synchronize", (CUDA,), _DEVICE),
    Question("device_synchronize", (ZOO,), _NOTHING),
    # its memory
    Question("memory_allocated", (*ALLOCATOR, MPS), _DEVICE),
    Question("memory_reserved", (*ALLOCATOR, MPS), _DEVICE),
    Question("max_memory_allocated", (*ALLOCATOR, MPS), _DEVICE),
    Question("max_memory_reserved", (*ALLOCATOR, MPS), _DEVICE),
    Question("mem_get_info", (*ALLOCATOR, MPS), _DEVICE),
    Question("reset_peak_memory_stats", (*ALLOCATOR, MPS), _DEVICE),
    Question("reset_max_memory_allocated", ALLOCATOR, _DEVICE),
    Question("reset_max_memory_cached", ALLOCATOR, _DEVICE),
    Question("reset_accumulated_memory_stats", ALLOCATOR, _DEVICE),
    Question("set_per_process_memory_fraction", ALLOCATOR, "(fraction, device=None)"),
    Question("empty_cache", ALLOCATOR, _NOTHING),
    Question("device_empty_cache", (ZOO,), _NOTHING),
    Question("ipc_collect", (CUDA,), _NOTHING),
    # its random numbers
    Question("seed", GENERATOR, _NOTHING),
    Question("seed_all", GENERATOR, _NOTHING),
    Question("initial_seed", GENERATOR, _NOTHING),
    Question("manual_seed", GENERATOR, "(seed)"),
    Question("manual_seed_all", GENERATOR, "(seed)"),
    Question("get_rng_state", GENERATOR, "(device='cuda')"),
    Question("get_rng_state_all", GENERATOR, _NOTHING),
    Question("set_rng_state", GENERATOR, "(new_state, device='cuda')"),
    Question("set_rng_state_all", GENERATOR, "(new_states)"),
)


def asked_of(module: str) -> tuple[Question, ...]:
    """The rows of one module."""
    return tuple(question for question in QUESTIONS if module in question.asked)


_patch = partial(Patch, distribution=DISTRIBUTION, reviewed=REVIEWED)

CHANGES = (
    *(
        _patch(
            target=f"{module}:{question.name}",
            replacement=question.answer,
            expects=question.expects,
            needed_for=None,
            why="a CUDA script asks torch.cuda, which raises or answers zero where there is no CUDA",
            upstream=source("torch/cuda/__init__.py", "_lazy_init"),
            until="torch.cuda answers for mps where there is no CUDA",
        )
        for module in (CUDA, MEMORY, RANDOM)
        for question in asked_of(module)
    ),
    *(
        _patch(
            target=f"{MPS}:{question.name}",
            replacement=question.answer,
            adds=True,
            needed_for=question.needed_for,
            why=f"Unsloth asks the device's module for {question.name}, and torch.mps has none",
            upstream=source("torch/mps/__init__.py", "__all__"),
            until=f"the oldest torch that is supported has torch.mps.{question.name}",
        )
        for question in asked_of(MPS)
    ),
    _patch(
        target="torch:_C._cuda_getCurrentRawStream",
        replacement=f"{_ANSWERS}:_cuda_getCurrentRawStream",
        adds=True,
        needed_for="the import of Unsloth",
        why="unsloth/kernels/utils.py asks for the stream of each device while it is imported",
        upstream=unsloth("unsloth/kernels/utils.py", "_CUDA_STREAMS"),
        until="Unsloth asks for streams only where it launches native kernels",
    ),
)
