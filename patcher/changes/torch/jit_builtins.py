"""torch.jit.script knows the functions that stand in for torch's."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import Patch

CHANGES = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch.jit._builtins:_builtin_table",
        replacement="patcher.replacements.torch.jit_builtins:_builtin_table",
        needed_for=None,
        why="torch.jit.script looks a function up by its identity, and refuses one that stands in for torch's",
        upstream=source("torch/jit/_builtins.py", "_find_builtin"),
        until="torch itself takes 'cuda' for mps where there is no CUDA",
    ),
)
