"""Environment variables that a run on mps needs, set where the user has set nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import metadata

from packaging.version import Version

from patcher.changes import torch, unsloth, unsloth_zoo
from patcher.engine.model import EnvDefault, Upstream
from patcher.environment import HIGH, LOW
from patcher.macs.machine import Machine


def _low_for(environment: Mapping[str, str]) -> str | None:
    """A soft limit of nine tenths of the user's own hard limit; None where the user has set none."""
    high = environment.get(HIGH)
    return None if high is None or high == HIGH_DEFAULT else f"{float(high) * 0.9:.4g}"


def _high_for(environment: Mapping[str, str]) -> str | None:
    """A hard limit that is not below the user's own soft limit; None where the user has set none."""
    low = environment.get(LOW)
    return None if low is None else f"{max(float(low), float(HIGH_DEFAULT)):.4g}"


def _on_linux_only(machine: Machine) -> str | None:
    return None if machine.simulated else "a Mac's torchvision wheel is whole"


def _with_rows_of_several_texts(machine: Machine) -> str | None:
    """Why Unsloth's batches without padding are right as they are, None before the release from which on they are."""
    try:
        version = metadata.version(unsloth.DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "Unsloth is not installed"
    needed = Version(version) < Version(PADDING_FREE_SINCE)
    return None if needed else f"rows of several texts are right since {PADDING_FREE_SINCE}"


PADDING_FREE_SINCE = "2026.10.1"
HIGH_DEFAULT = "1.2"
_torch_needs = partial(EnvDefault, distribution=torch.DISTRIBUTION, reviewed=torch.REVIEWED)
_torch = partial(_torch_needs, needed_for=None)
_unsloth = partial(EnvDefault, distribution=unsloth.DISTRIBUTION, reviewed=unsloth.REVIEWED, needed_for=None)

CHANGES = (
    _torch(
        name=HIGH,
        value=HIGH_DEFAULT,
        derive=_high_for,
        before="torch",
        why="torch's default of 1.7 times the working set is more memory than the Mac has, so that it swaps until it "
        "hangs",
        upstream=torch.source("torch/include/ATen/mps/MPSAllocator.h", "default_high_watermark_ratio"),
        until="torch limits an mps process to the memory of the machine by default",
    ),
    _torch_needs(
        name=LOW,
        value="1.0",
        derive=_low_for,
        before="torch",
        why="a soft limit above the hard limit keeps torch from starting the device",
        needed_for="the device to start: torch's own soft limit, 1.4, is above the hard limit that is set here",
        upstream=torch.native("aten/src/ATen/mps/MPSAllocator.mm", "setLowWatermarkRatio"),
        until="PYTORCH_MPS_HIGH_WATERMARK_RATIO needs no default",
    ),
    _torch(
        name="PYTORCH_ENABLE_MPS_FALLBACK",
        value="1",
        before="torch",
        why="an operator without an mps kernel stops the run, where the CPU could compute it",
        upstream=torch.native("aten/src/ATen/mps/MPSFallback.mm", "PYTORCH_ENABLE_MPS_FALLBACK"),
        until="every operator that the patched libraries call has an mps kernel",
    ),
    _torch(
        name="TORCHINDUCTOR_ERROR_ON_CUSTOM_OP_ALIASING",
        value="0",
        before="torch",
        why="where CI is set, torch refuses an operator of Inductor's own that Unsloth's compiled masks use",
        upstream=torch.source("torch/_functorch/config.py", "error_on_custom_op_aliasing"),
        until="torch leaves its own operators out of the check, or Unsloth compiles without memory_planning",
    ),
    EnvDefault(
        distribution="tokenizers",
        reviewed="==0.23.3",
        name="TOKENIZERS_PARALLELISM",
        value="false",
        needed_for=None,
        everywhere=True,
        why="tokenizer threads and a later fork deadlock, and each worker warns about it",
        upstream=Upstream(
            "huggingface/tokenizers", "tokenizers/src/utils/parallelism.rs", "ENV_VARIABLE", installed=False
        ),
        until="tokenizers no longer warns after a fork",
    ),
    _unsloth(
        name="UNSLOTH_FORCE_GPU_PATH",
        value="1",
        before="unsloth",
        why="with mlx installed Unsloth would take its MLX path, where the model is no torch module",
        upstream=unsloth.source("unsloth/__init__.py", "_is_mlx_available"),
        until="Unsloth asks before it takes the MLX path",
    ),
    _unsloth(
        name="UNSLOTH_DISABLE_AUTO_PADDING_FREE",
        value="1",
        before="unsloth",
        skip=_with_rows_of_several_texts,
        why="before 2026.10.1 a row of several texts needs a mask of tokens by tokens on mps, and 2026.2.1 gives "
        "losses that are off by 5%",
        upstream=unsloth.source("unsloth/trainer.py", "_AUTO_PADDING_FREE_ENV_DISABLED"),
        until="no release before 2026.10.1 is used",
    ),
    _unsloth(
        name="UNSLOTH_DISABLE_PINNED_MEMORY",
        value="1",
        before="unsloth",
        why="memory is unified: pinning buys nothing, and mps has no pinned allocator",
        upstream=unsloth_zoo.source("unsloth_zoo/gradient_checkpointing.py", "_pinned_memory_disabled"),
        until="Unsloth asks the device whether it can pin",
    ),
    _unsloth(
        name="UNSLOTH_COMPILE_LOCATION",
        value="unsloth_compiled_cache_mps",
        before="unsloth_zoo",
        why="code that Unsloth generated for another device in the same folder would be reused on mps",
        upstream=unsloth_zoo.source("unsloth_zoo/compiler.py", "UNSLOTH_COMPILE_LOCATION"),
        until="Unsloth keeps the caches of different devices apart",
    ),
    _unsloth(
        name="UNSLOTH_SKIP_TORCHVISION_CHECK",
        value="1",
        skip=_on_linux_only,
        before="unsloth",
        why="the Linux wheel of torchvision is a CUDA build that does not load beside CPU torch",
        upstream=unsloth.source("unsloth/import_fixes.py", "torchvision_compatibility_check"),
        until="a CPU build of torchvision is on PyPI",
    ),
)
