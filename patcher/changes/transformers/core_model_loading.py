"""A model is read to mps tensor by tensor, by one thread: no crash on a change of dtype, and no pile of tensors."""

from __future__ import annotations

from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution="transformers",
        reviewed=">=5.17,<5.18",
        target="transformers.core_model_loading:spawn_materialize",
        replacement="patcher.replacements.transformers.core_model_loading:spawn_materialize",
        expects="(thread_pool, tensor, device=None, dtype=None, sharding_op=None, tensor_idx=None)",
        needed_for=None,
        why="four threads convert tensors on mps at once, which crashes a Mac (a bf16 checkpoint loaded in fp32), and "
        "read ahead of a mixture's experts that are still to be put together",
        upstream="transformers issue 48029; transformers 5.17.0 core_model_loading.py: GLOBAL_WORKERS",
        until="the issue is closed, and transformers loads to mps in one thread",
    ),
)
