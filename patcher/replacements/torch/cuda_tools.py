"""What marks or measures CUDA: ranges for NVIDIA's profiler, figures of its driver, the history of its allocator."""

from __future__ import annotations

import itertools
import logging
from typing import Any, NoReturn

from patcher.engine.ledger import LEDGER, original
from patcher.errors import NotOnMac, compose

log = logging.getLogger("patcher")
_RANGES = itertools.count(1)
_HISTORY = (
    "mps records no history of its memory: snapshots are empty (torch.cuda.memory_allocated() tells what is in use)"
)


def range_push(msg: str) -> int:
    """0, the depth of a range that nobody records."""
    return 0


def range_pop() -> int:
    """0, the depth of a range that nobody records."""
    return 0


def range_start(msg: str) -> int:
    """A number for the range, which nobody records."""
    return next(_RANGES)


def range_end(range_id: int) -> None:
    """Nothing to do: nobody records the range."""


def mark(msg: str) -> None:
    """Nothing to do: nobody records the mark."""


def start() -> None:
    """Nothing to do: NVIDIA's profiler is not there; `torch.mps.profiler.start` is for Instruments."""


def stop() -> None:
    """Nothing to do, as `start`."""


def emit_nvtx_init(self: Any, enabled: bool = True, record_shapes: bool = False) -> None:
    """Switched off: operators are not marked."""
    original("torch.autograd.profiler:emit_nvtx.__init__")(self, False, record_shapes)


def utilization(device: Any = None) -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("utilization")


def memory_usage(device: Any = None) -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("memory_usage")


def device_memory_used(device: Any = None) -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("device_memory_used")


def temperature(device: Any = None) -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("temperature")


def power_draw(device: Any = None) -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("power_draw")


def clock_rate(device: Any = None) -> NoReturn:
    """Raises NotOnMac."""
    raise _refusal("clock_rate")


def _refusal(name: str) -> NotOnMac:
    return NotOnMac(
        compose(
            f"torch.cuda.{name}() asks NVIDIA's driver, and this is a Mac",
            expected="torch.cuda.mem_get_info() for memory; `sudo powermetrics --samplers gpu_power` in a terminal for "
            "load, clock and power",
            left="nothing changed",
        )
    )


def _record_memory_history(enabled: Any = "all", *args: Any, **kwargs: Any) -> None:
    """Nothing is recorded, which is said once."""
    if enabled is not None and _HISTORY not in LEDGER.notes:
        LEDGER.notes.append(_HISTORY)
        log.warning("patcher: %s", _HISTORY)


def _snapshot(device: Any = None, augment_with_fx_traces: bool = False) -> dict[str, Any]:
    """A snapshot without segments, which torch's viewer opens."""
    return {"segments": [], "device_traces": []}
