"""Compiled code that adds a sum to a tensor in place adds it once."""

from __future__ import annotations

from patcher.engine.model import Patch

CHANGES = (
    Patch(
        distribution="torch",
        reviewed=">=2.13,<2.15",
        target="torch._inductor.codegen.mps:MetalKernel.store",
        replacement="patcher.replacements.torch.inductor_mps:store",
        expects="(self, name, index, value, mode=None)",
        needed_for="sums in compiled code, which are wrong without a word",
        why="Inductor's Metal code for total.add_(x.sum()) lets every thread add to the total that it reads: a race",
        upstream="torch 2.13.0 torch/_inductor/codegen/mps.py: MetalKernel.store, beside store_reduction",
        until="Inductor stores what follows a reduction from one thread only",
    ),
)
