"""Time, throughput and memory of a family on a device, measured in a process of its own.

``python -m patcher.bench.measure OUT ORDER`` reads an `Order` as JSON and writes a `Figures` as JSON to OUT.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from patcher.bench.families import FAMILIES
from patcher.bench.family import to
from patcher.bench.steps import NEW_TOKENS, generate, observe, optimizer_for, with_adapters


@dataclass(frozen=True)
class Order:
    """What to measure.

    Attributes:
        simulate: a Mac to simulate, for device mps on Linux.
    """

    model: str
    device: str
    dtype: str
    rows: int = 2
    steps: int = 5
    simulate: str | None = None


@dataclass(frozen=True)
class Figures:
    """What was measured; seconds are medians over the steps, bytes are peaks.

    Attributes:
        forward: seconds of a forward pass of the base model without gradients.
        step: seconds of a training step of LoRA: forward, backward and AdamW.
        generation: seconds of one new token in each row; None if the family does not generate.
        peak: bytes. On mps those of live tensors during the steps; on the CPU the process's resident set.
        losses: of the model; of the model with adapters, before and after one step.
        fell_back: the operators that ran on the CPU, as far as the device tells: a simulated one does.
    """

    forward: float
    step: float
    generation: float | None
    peak: int
    losses: tuple[float, float, float]
    fell_back: list[str] = field(default_factory=list)


def measure(order: Order) -> Figures:
    """Measures in this process, which must be fresh: the CPU's peak is that of the process."""
    if order.device == "mps":
        _patch(order.simulate)
    import torch
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    family, dtype = FAMILIES[order.model], getattr(torch, order.dtype)
    losses = observe(family, order.device, dtype, order.rows).losses
    model = family.build().to(order.device, family.weights(dtype))
    batch = to(family.batch(order.rows), order.device, family.weights(dtype))
    _reset_peak(order.device)

    def forward() -> Any:
        with family.precision(order.device, dtype):
            return model(**batch)

    with torch.no_grad():
        seconds = _median(order, forward)
        token = _median(order, lambda: generate(family, model, batch)) / NEW_TOKENS if family.generates else None
    model = with_adapters(family, model).train()
    optimizer = optimizer_for(model)

    def train() -> None:
        optimizer.zero_grad()
        forward().loss.backward()
        optimizer.step()

    step = _median(order, train)
    return Figures(seconds, step, token, _peak(order.device), losses, _fell_back(order.device))


def _patch(simulate: str | None) -> None:
    """Patches, and refuses to measure the CPU under the name of mps."""
    from patcher import patch_for_mac
    from patcher.errors import NoMps

    handle = patch_for_mac(simulate=simulate, verbose=False)
    if not handle.active:
        raise NoMps(str(handle.report()))


def _median(order: Order, action: Callable[[], Any]) -> float:
    """Seconds, after one run that is not counted."""
    seconds = []
    for number in range(order.steps + 1):
        start = time.perf_counter()
        action()
        _wait(order.device)
        if number:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _wait(device: str) -> None:
    if device == "mps":
        import torch

        torch.mps.synchronize()


def _reset_peak(device: str) -> None:
    if device == "mps":
        import torch

        torch.mps.reset_peak_memory_stats()  # type: ignore[attr-defined]  # one of those that patch_for_mac adds


def _peak(device: str) -> int:
    if device == "mps":
        import torch

        peak: int = torch.mps.max_memory_allocated()  # type: ignore[attr-defined]  # likewise
        return peak
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _fell_back(device: str) -> list[str]:
    from patcher.simulator import running

    simulated = running() if device == "mps" else None
    return sorted(simulated.rules.fell_back) if simulated else []


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(asdict(measure(Order(**json.loads(sys.argv[2]))))))
