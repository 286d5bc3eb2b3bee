"""Compiled code that adds a sum to a tensor in place adds it once."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch

CHANGES = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch._inductor.codegen.mps:MetalKernel.store",
        replacement="patcher.replacements.torch.inductor_mps:store",
        expects="(self, name, index, value, mode=None)",
        needed_for="sums in compiled code, which are wrong without a word",
        why="Inductor's Metal code for total.add_(x.sum()) lets every thread add to the total that it reads: a race",
        upstream=source("torch/_inductor/codegen/mps.py", "MetalKernel.store"),
        until="MetalKernel.store writes what follows a reduction from one thread only",
    ),
)
