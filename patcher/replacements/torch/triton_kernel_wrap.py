"""What ``torch.library.wrap_triton`` gives for a kernel while torch traces: a launch through the shim's operator.

Where nothing is traced torch itself gives the kernel as it is.
"""

from __future__ import annotations

from typing import Any

from patcher.engine.ledger import original
from patcher.tiles.language import Jitted

WRAPPER = "torch._higher_order_ops.triton_kernel_wrap:TraceableTritonKernelWrapper"


def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807 - as torch's
    """``wrap_triton(kernel)[grid](...)``."""
    if not _is_of_the_shim(self.kernel):
        return original(f"{WRAPPER}.__call__")(self, *args, **kwargs)
    from patcher.tiles.traced import as_operator  # which imports Dynamo, which imports this

    with as_operator():
        return self.kernel[self.grid](*args, **kwargs)


def run(self: Any, *args: Any, **kwargs: Any) -> Any:
    """``wrap_triton(kernel).run(..., grid=grid)``."""
    if not _is_of_the_shim(self.kernel):
        return original(f"{WRAPPER}.run")(self, *args, **kwargs)
    from patcher.tiles.traced import as_operator

    with as_operator():
        return self.kernel.run(*args, **kwargs)


def _is_of_the_shim(kernel: Any) -> bool:
    """Whether it is a kernel of the shim's, or an autotuner around one."""
    while not isinstance(kernel, Jitted) and hasattr(kernel, "fn"):
        kernel = kernel.fn
    return isinstance(kernel, Jitted)
