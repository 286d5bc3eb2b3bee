"""Compiled code that makes tensors on ``"cuda"``, or chooses that device, does so on mps."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="torch.compile makes tensors for device='cuda' that do not go together with those on mps",
    until="torch itself takes 'cuda' for mps where there is no CUDA",
)

CHANGES: tuple[AnyChange, ...] = (
    _patch(
        target="torch._subclasses.fake_tensor:FakeTensor._normalize_fake_device",
        replacement="patcher.replacements.torch.compiled:_normalize_fake_device",
        expects="(device)",
        upstream=source("torch/_subclasses/fake_tensor.py", "FakeTensor._normalize_fake_device"),
    ),
    _patch(
        target="torch._inductor.utils:decode_device",
        replacement="patcher.replacements.torch.compiled:decode_device",
        expects="(device)",
        upstream=source("torch/_inductor/utils.py", "decode_device"),
    ),
    Patch(
        distribution=DISTRIBUTION,
        reviewed=REVIEWED,
        target="torch._dynamo.variables.ctx_manager:get_device_context_manager",
        replacement="patcher.replacements.torch.compiled:get_device_context_manager",
        expects="(device_context)",
        needed_for=None,
        why="compiled code stops at `with torch.cuda.device(x.device)`, within which libraries launch Triton kernels: "
        "Dynamo takes it for CUDA's, which refuses a device that is mps",
        upstream=source("torch/_dynamo/variables/ctx_manager.py", "get_device_context_manager"),
        until="torch itself takes 'cuda' for mps where there is no CUDA",
    ),
)
