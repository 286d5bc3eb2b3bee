"""``torch.jit.script`` compiles code that calls functions of torch's that are replaced."""

from __future__ import annotations

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

CHANGES: tuple[AnyChange, ...] = (
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch.jit._builtins:_find_builtin",
        replacement="patcher.replacements.torch.jit:_find_builtin",
        expects="(fn)",
        needed_for=None,
        why="torch.jit.script of code that calls torch.tensor fails: it looks torch's functions up by their identity",
        upstream=source("torch/jit/_builtins.py", "_find_builtin"),
        until="no function that it knows is replaced",
    ),
)
