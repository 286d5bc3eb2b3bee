"""Every ``device_map`` of a CUDA script loads straight to mps; a model that cannot fit is refused before loading."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_MODULE = "transformers.modeling_utils"

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=f"{_MODULE}:check_and_set_device_map",
        replacement="patcher.replacements.transformers.device_map:check_and_set_device_map",
        expects="(device_map)",
        needed_for=None,
        why='device_map="cuda:0" or 0 reads through a memory map that mps cannot use, and "cuda" first allocates the '
        "whole model once more to warm up CUDA's allocator",
        upstream=source("transformers/modeling_utils.py", "caching_allocator_warmup"),
        until="from_pretrained loads device_map='cuda:0' to mps where there is no CUDA",
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target=f"{_MODULE}:_get_device_map",
        replacement="patcher.replacements.transformers.device_map:_get_device_map",
        expects="(model, device_map, max_memory, hf_quantizer)",
        needed_for=None,
        why="what is free is asked of the system, not of torch's limit, and layers for the CPU take the same memory: "
        "layers go to the disk that fit on the GPU, or loading ends in the middle",
        upstream=source("transformers/integrations/accelerate.py", "_get_device_map"),
        until="accelerate.utils.get_max_memory asks torch.mps what may be used",
    ),
)
