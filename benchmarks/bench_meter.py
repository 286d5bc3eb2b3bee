"""What the meter costs: a training step of a small Llama on the simulated device, metered and not, as a ratio.

    python benchmarks/bench_meter.py

The model, the optimizer and the batch are those of bench_simulator.py. Steps without a meter, with one, and with one
that does not tell by module take turns; medians are compared.
"""

from __future__ import annotations

import contextlib
import statistics
from contextlib import AbstractContextManager

import torch
from bench_simulator import step, trainer

from patcher.simulator import start
from patcher.simulator.meter import Meter

STEPS, WARM = 12, 2


def main() -> None:
    start("M3 Max 36GB")
    torch.set_num_threads(1)
    parts = trainer("mps")
    times: dict[str, list[float]] = {"off": [], "on": [], "without modules": []}
    for index in range(WARM + STEPS):
        for kind, taken in times.items():
            meters: dict[str, AbstractContextManager[object]] = {
                "off": contextlib.nullcontext(),
                "on": Meter(),
                "without modules": Meter(modules=False),
            }
            with meters[kind]:
                milliseconds = step(*parts)
            if index >= WARM:
                taken.append(milliseconds)
    off, on, plain = (statistics.median(taken) for taken in times.values())
    print(
        f"{STEPS} steps each: off {off:.1f} ms, on {on:.1f} ms, ratio {on / off:.2f}; without modules {plain / off:.2f}"
    )


if __name__ == "__main__":
    main()
