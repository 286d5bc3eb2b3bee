"""Quantized models that were loaded to mps are trained there."""

from __future__ import annotations

from typing import Any

import torch

from patcher.engine.ledger import original


def prepare_model(self: Any, model: Any, device_placement: bool | None = None, evaluation_mode: bool = False) -> Any:
    """As accelerate's; while it runs, the model's map of devices has a number for mps, as for other devices."""
    prepare = original("accelerate.accelerator:Accelerator.prepare_model")
    places = getattr(model, "hf_device_map", None)
    if not places:
        return prepare(self, model, device_placement, evaluation_mode)
    own = "hf_device_map" in vars(model)
    model.hf_device_map = {name: _numbered(place) for name, place in places.items()}
    try:
        return prepare(self, model, device_placement, evaluation_mode)
    finally:
        if own:
            model.hf_device_map = places
        else:
            del model.hf_device_map


def _numbered(place: Any) -> Any:
    named = isinstance(place, (str, torch.device)) and place not in ("cpu", "disk")
    return 0 if named and torch.device(place).type == "mps" else place
