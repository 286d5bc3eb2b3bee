"""A model is read to mps tensor by tensor, by one thread: no crash on a change of dtype, and no pile of tensors."""

from __future__ import annotations

from patcher.changes.transformers import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="transformers.core_model_loading:spawn_materialize",
        replacement="patcher.replacements.transformers.core_model_loading:spawn_materialize",
        expects="(thread_pool, tensor, device=None, dtype=None, sharding_op=None, tensor_idx=None)",
        needed_for=None,
        why="four threads convert tensors on mps at once, which crashes a Mac (a bf16 checkpoint loaded in fp32), and "
        "read ahead of a mixture's experts that are still to be put together",
        upstream=source(
            "transformers/core_model_loading.py",
            "GLOBAL_WORKERS",
            ("https://github.com/huggingface/transformers/issues/48029",),
        ),
        until="transformers issue 48029 is closed, and tensors for mps are read by one thread",
    ),
)
