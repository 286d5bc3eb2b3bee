"""``torch.library.wrap_triton`` takes the kernels of the Triton shim."""

from __future__ import annotations

from functools import partial

from patcher.changes.torch import DISTRIBUTION, REVIEWED, source
from patcher.engine.model import AnyChange, Patch

_patch = partial(
    Patch,
    distribution=DISTRIBUTION,
    reviewed=REVIEWED,
    needed_for=None,
    why="what torch traces of a wrapped kernel is an operator that only Triton's own compiler can take further",
    until="torch traces wrapped kernels without Triton's compiler",
)

CHANGES: tuple[AnyChange, ...] = tuple(
    _patch(
        target=f"torch._higher_order_ops.triton_kernel_wrap:TraceableTritonKernelWrapper.{name}",
        replacement=f"patcher.replacements.torch.triton_kernel_wrap:{name}",
        expects="(self, *args, **kwargs)",
        upstream=source("torch/_higher_order_ops/triton_kernel_wrap.py", f"TraceableTritonKernelWrapper.{name}"),
    )
    for name in ("__call__", "run")
)
