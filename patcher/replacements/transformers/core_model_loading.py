"""When a tensor of a checkpoint is read."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original


def spawn_materialize(
    thread_pool: Any,
    tensor: Any,
    device: Any = None,
    dtype: Any = None,
    sharding_op: Any = None,
    tensor_idx: Any = None,
) -> Any:
    """As upstream; a tensor for mps is read and converted when it is put into the model, not by a thread before."""
    if str(device).startswith("mps"):
        thread_pool = None
    return original("transformers.core_model_loading:spawn_materialize")(
        thread_pool, tensor, device, dtype, sharding_op, tensor_idx
    )
