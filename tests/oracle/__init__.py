"""Unsloth's own Triton kernels, run on CPU tensors in Triton's interpreter: what replacements are compared with.

Importing Unsloth's kernel files needs a real Triton, which the test process must not have. So they run in a child
process that lives as long as the test session (one start, about five seconds, however many tests use it)::

    from tests.oracle import INTERPRETED, PATCHED

    expected = INTERPRETED.call("rms_layernorm:forward_backward", X, W, eps=1e-6)
    found = PATCHED.call("rms_layernorm:forward_backward", X, W, eps=1e-6)

``"rms_layernorm:forward_backward"`` names the function ``forward_backward`` of ``tests/oracle/cases/rms_layernorm.py``.
A case file imports upstream at its top (``from unsloth.kernels import rms_layernorm``) and each of its functions takes
and returns anything that ``torch.save`` can carry: tensors (strides, aliasing and ``requires_grad`` are kept), numbers,
lists, dicts. Every call gets copies, so in-place changes are seen only if the case returns the tensor.

* ``INTERPRETED`` runs upstream's kernels as they are. Only two things are ours, in ``worker.py``: bfloat16 arithmetic
  (the interpreter computes on the bits as if they were integers, and truncates where a GPU rounds to nearest even), and
  ``libdevice.tanh`` (the interpreter has none).
* ``PATCHED`` imports the same upstream files, applies this project's patches to them, and runs the same case. There the
  kernels cannot be launched at all, so an answer shows that no Triton was reached. With ``PATCHER_ORACLE=metal``
  the case runs on a simulated Mac, with the Metal variants of ops.

Both load the kernel files without running ``unsloth/__init__.py`` or ``unsloth_zoo/__init__.py``; submodules of both
packages can be imported as usual. They fail, and do not skip, when ``<sys.prefix>/oracle`` has no Triton.
"""

from __future__ import annotations

import os

from tests.oracle.client import Oracle, OracleError

INTERPRETED = Oracle("interpreted")
PATCHED = Oracle(os.environ.get("PATCHER_ORACLE", "patched"))

__all__ = ["INTERPRETED", "PATCHED", "Oracle", "OracleError"]
