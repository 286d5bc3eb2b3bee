"""``torch.cuda.CUDAGraph`` and what belongs to it, where nothing can be captured."""

from __future__ import annotations

from typing import Any, NoReturn

from patcher.errors import NotOnMac, compose


def __new__(cls: type, keep_graph: bool = False) -> NoReturn:  # noqa: N807 - it replaces a class's
    """Raises NotOnMac."""
    raise _refusal("torch.cuda.CUDAGraph")


def graph_pool_handle() -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("torch.cuda.graph_pool_handle")


def is_current_stream_capturing() -> bool:
    """False: mps captures nothing."""
    return False


def make_graphed_callables(
    callables: Any,
    sample_args: Any,
    num_warmup_iters: int = 3,
    allow_unused_input: bool = False,
    pool: Any = None,
    capture_error_mode: str = "global",
    enable_annotations: bool = False,
) -> Any:
    """The callables as they are: they compute the same, launched one kernel at a time."""
    return callables


def _refusal(name: str) -> NotOnMac:
    return NotOnMac(
        compose(
            f"{name}: mps cannot capture graphs",
            expected="the function itself, called where the script calls graph.replay(), or torch.compile of it",
            left="nothing changed",
        )
    )
