"""torch.jit.script knows the functions that stand in for torch's."""

from __future__ import annotations

from patcher.engine.model import Patch

CHANGES = (
    Patch(
        distribution="torch",
        reviewed=">=2.13,<2.15",
        target="torch.jit._builtins:_builtin_table",
        replacement="patcher.replacements.torch.jit_builtins:_builtin_table",
        needed_for=None,
        why="torch.jit.script looks a function up by its identity, and refuses one that stands in for torch's",
        upstream="torch 2.13.0 torch/jit/_builtins.py",
        until="never: scripts written for CUDA are what this project is for",
    ),
)
