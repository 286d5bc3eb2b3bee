"""What torch and Unsloth ask Triton's compiler for when they are imported."""

from __future__ import annotations

import triton


class CompiledKernel:
    """The class of compiled kernels. Nothing makes one; it is there for annotations and isinstance."""


def triton_key() -> str:
    """What torch.compile adds to the keys of its caches: entries made with a real Triton are not mixed up with ours."""
    return f"patch-for-mac shim {triton.__version__}"
