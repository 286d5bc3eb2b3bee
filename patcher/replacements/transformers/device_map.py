"""Where transformers puts a model's layers on a Mac: one GPU, whose memory is the machine's."""

from __future__ import annotations

import gc
import importlib
import logging
from collections.abc import Mapping
from typing import Any

import torch

from patcher.engine.ledger import current_machine, original
from patcher.macs import fit
from patcher.replacements.torch.cuda_device import is_cuda
from patcher.replacements.torch.memory_limit import limit

log = logging.getLogger("patcher")

_LOADING = "transformers.modeling_utils"


def check_and_set_device_map(device_map: Any) -> Any:
    """As upstream, with "mps" for CUDA in every form: a name, a number, a torch.device, or within a dict."""
    given = {part: on_mps(place) for part, place in device_map.items()} if isinstance(device_map, dict) else device_map
    chosen = original(f"{_LOADING}:check_and_set_device_map")(on_mps(given))
    return {part: on_mps(place) for part, place in chosen.items()} if isinstance(chosen, dict) else chosen


def on_mps(place: Any) -> Any:
    """``"mps"`` for anything that names it or a CUDA device; other places as they are."""
    if isinstance(place, bool):
        return place
    if isinstance(place, int):
        return "mps" if place >= 0 else place
    if is_cuda(place) or str(place) in ("mps", "mps:0"):
        return "mps"
    return place


def _get_device_map(model: Any, device_map: Any, max_memory: Any, hf_quantizer: Any) -> Any:
    """The place of every part of the model, when its weights fit there.

    "auto" and its kin put everything on mps; with ``max_memory`` they divide it as upstream. What is then for the CPU
    goes to mps too, as accelerate would move it: it is the same memory.

    Raises:
        ModelDoesNotFit: the weights that go to mps are more than torch may take.
    """
    if isinstance(device_map, str):
        if max_memory is None:
            device_map = {"": "mps"}
            if hf_quantizer is not None:
                hf_quantizer.validate_environment(device_map=device_map)
        else:
            device_map = original(f"{_LOADING}:_get_device_map")(
                model, device_map, memory_by_place(max_memory), hf_quantizer
            )
    if not isinstance(device_map, dict):
        return device_map
    places = set(map(str, device_map.values()))
    if "mps" not in places:
        return device_map
    if "cpu" in places and hf_quantizer is None:
        log.info("patcher: what device_map leaves to the CPU is loaded to mps: on a Mac it is the same memory")
        device_map = {part: "mps" if str(place) == "cpu" else place for part, place in device_map.items()}
    _check(model, device_map, hf_quantizer)
    return device_map


def memory_by_place(max_memory: Mapping[Any, Any]) -> dict[Any, Any]:
    """``max_memory`` with the budgets of all CUDA devices added up for mps, in bytes."""
    convert_file_size_to_int = importlib.import_module("accelerate.utils.modeling").convert_file_size_to_int
    budgets: dict[Any, Any] = {}
    for place, size in max_memory.items():
        key = on_mps(place)
        number = convert_file_size_to_int(size) if isinstance(size, str) else size
        budgets[key] = budgets.get(key, 0) + number
    return budgets


def _check(model: Any, device_map: Mapping[str, Any], hf_quantizer: Any) -> None:
    from transformers.integrations.accelerate import expand_device_map

    if not fit.knows(hf_quantizer):
        return
    names = [name for name, _ in [*model.named_parameters(), *model.named_buffers()]]
    placed = {name: str(place) for name, place in expand_device_map(dict(device_map), names).items()}
    need = fit.need_of(model, hf_quantizer, placed, _convertible(model) if hf_quantizer is None else frozenset())
    name = f"{type(model).__name__} from {model.config.name_or_path or 'its configuration'}"
    free = limit().free
    if free is not None and need.weights > free:
        gc.collect()  # a model that was deleted may be held by a cycle of references
    fit.check(name, need, limit(), current_machine())


def _convertible(model: Any) -> frozenset[str]:
    """The weights that transformers would quantize with bitsandbytes: linear layers but for the head."""
    from transformers.quantizers.base import get_keys_to_not_convert

    kept = set(get_keys_to_not_convert(model))
    return frozenset(
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in kept
    )
