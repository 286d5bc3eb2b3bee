"""What Inductor writes into a Metal kernel."""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original

BARRIER = "threadgroup_barrier(metal::mem_flags::mem_device);"


def store(self: Any, name: str, index: Any, value: Any, mode: Any = None) -> None:
    """``MetalKernel.store``; after a reduction one thread of the group stores, when all have read.

    The threads of a group then hold the same value for the same place, as in ``store_reduction``: if all of them store
    it, one that comes late reads what another has already stored.
    """
    original("torch._inductor.codegen.mps:MetalKernel.store")(self, name, index, value, mode)
    if self.inside_reduction or not self.features.is_reduction():
        return
    thread = next(tree.name for tree in self.range_trees if tree.is_reduction)
    lines = self.stores.get_lines_ref()
    lines[-1:] = [lines[-1]._new_line(BARRIER), lines[-1].with_prefix(f"if ({thread} == 0) ")]
