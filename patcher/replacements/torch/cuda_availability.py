"""Whether there is CUDA, and whether a tensor is there: yes for the script's own code, whose "cuda" is mps; no for
libraries.

Libraries that hear yes launch kernels that a Mac lacks (Triton, bitsandbytes for CUDA, NCCL); those that hear no
take mps. A script that hears no takes the CPU, without a word.
"""

from __future__ import annotations

import functools
import logging
import sys
from types import FrameType
from typing import Any

import torch

from patcher import environment
from patcher.changes import catalogue
from patcher.engine.ledger import LEDGER, original
from patcher.provenance import is_library, is_users

log = logging.getLogger("patcher")

_NOTE = (
    "the script asks whether there is CUDA: it is told yes, one GPU, and gets mps "
    "(PATCHER_CUDA_ANSWERS=0 answers no; libraries are told no)"
)
_DYNAMO = f"{torch.__path__[0]}/_dynamo/variables/"
"""Where Dynamo answers what the code that it traces asks. Elsewhere it asks for itself."""


def is_available() -> bool:
    """True for the script's own code, False for libraries and where ``CUDA_VISIBLE_DEVICES`` shows no GPU."""
    return _answers(sys._getframe(1)) or bool(original("torch.cuda:is_available")())


def device_count() -> int:
    """1 for the script's own code, 0 for libraries and where ``CUDA_VISIBLE_DEVICES`` shows no GPU."""
    return 1 if _answers(sys._getframe(1)) else int(original("torch.cuda:device_count")())


def is_initialized() -> bool:
    """As `is_available`: mps needs no start."""
    return _answers(sys._getframe(1)) or bool(original("torch.cuda:is_initialized")())


def is_built() -> bool:
    """As `is_available`: to a script it is the same question."""
    return _answers(sys._getframe(1)) or bool(original("torch.backends.cuda:is_built")())


def _is_cuda(self: torch.Tensor) -> Any:
    """As torch's; to the script's own code also True for a tensor on mps."""
    there = _OF_TORCH.__get__(self)
    if there is not False:
        return there
    with torch._C.DisableTorchFunction():  # a subclass or a mode has seen the one question that was asked
        on_mps = self.is_mps
    return on_mps and _answers(sys._getframe(1))


_OF_TORCH = vars(torch._C.TensorBase)["is_cuda"]
is_cuda = property(_is_cuda, doc=_OF_TORCH.__doc__)


def method_attr_is_cuda(self: Any, tx: Any) -> Any:
    """As Dynamo's; to the script's own code, which it traces, also True for a tensor on mps."""
    if self.device is not None and self.device.type == "mps" and _answers(sys._getframe(1)):
        return type(self).build(tx, True)
    return original("torch._dynamo.variables.tensor:TensorVariable.method_attr_is_cuda")(self, tx)


def _answers(caller: FrameType) -> bool:
    file = caller.f_code.co_filename
    if is_library(file) and not file.startswith(("<", _DYNAMO)):
        return False
    users = _is_traced_code_users() if file.startswith(_DYNAMO) else is_users(caller, _patched())
    if not users or environment.hides_gpus():
        return False
    if _NOTE not in LEDGER.notes:
        LEDGER.notes.append(_NOTE)
        log.warning("patcher: %s", _NOTE)
    return True


def _is_traced_code_users() -> bool:
    """Of a call that torch.compile makes while it traces: whether the line that it traces is the user's."""
    from torch._guards import TracingContext

    stack = TracingContext.extract_stack()
    return bool(stack) and not is_library(stack[-1].filename)


@functools.cache
def _patched() -> frozenset[str]:
    """The libraries that are changed, by the names of their packages."""
    return frozenset(change.distribution for change in catalogue())
