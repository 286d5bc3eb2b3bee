"""Where transformers puts a model that bitsandbytes quantizes while it is loaded."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("patcher")


def update_device_map(self: Any, device_map: Any) -> Any:
    """``device_map`` as it was given; the whole model on mps where it was not."""
    if device_map is not None:
        return device_map
    log.info("patcher: device_map was not given; the quantized model is loaded to mps")
    return {"": "mps"}
