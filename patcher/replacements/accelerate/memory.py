"""What accelerate takes for an out-of-memory error."""

from __future__ import annotations

from patcher.engine.ledger import original
from patcher.replacements.torch.out_of_memory import TOO_LARGE


def should_reduce_batch_size(exception: Exception) -> bool:
    """Whether a smaller batch may work; also where one tensor alone was too large."""
    too_large = isinstance(exception, RuntimeError) and str(exception).startswith(TOO_LARGE)
    known: bool = original("accelerate.utils.memory:should_reduce_batch_size")(exception)
    return too_large or known
