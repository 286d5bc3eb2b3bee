"""Every ``device_map`` of a CUDA script loads straight to mps; a model that cannot fit is refused before loading."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

_MODULE = "transformers.modeling_utils"

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target=f"{_MODULE}:check_and_set_device_map",
        replacement="patcher.replacements.transformers.device_map:check_and_set_device_map",
        expects="(device_map)",
        needed_for=None,
        why='device_map="cuda:0" or 0 reads through a memory map that mps cannot use, and "cuda" first allocates the '
        "whole model once more to warm up CUDA's allocator",
        upstream="transformers 5.17.0 modeling_utils.py: caching_allocator_warmup, `is_mps` in _load_pretrained_model",
        until="never: scripts written for CUDA are what this project is for",
    ),
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target=f"{_MODULE}:_get_device_map",
        replacement="patcher.replacements.transformers.device_map:_get_device_map",
        expects="(model, device_map, max_memory, hf_quantizer)",
        needed_for=None,
        why="what is free is asked of the system, not of torch's limit: layers go to the disk that fit on the GPU, or "
        "loading ends in the middle; and layers for the CPU take the same memory",
        upstream="transformers 5.17.0 integrations/accelerate.py: get_max_memory; accelerate 1.15.0 big_modeling.py: "
        "dispatch_model moves modules of the CPU to mps",
        until="accelerate asks torch.mps what may be used",
    ),
)
