"""What the simulated device costs: a training step of a small Llama on it, as a ratio to plain CPU torch.

    python benchmarks/bench_simulator.py

Both are timed alternately in one process; medians are compared. Prints steps, medians in ms, and the ratio.
"""

from __future__ import annotations

import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from patcher.simulator import start

STEPS, WARM = 12, 2


def trainer(device: str) -> tuple[LlamaForCausalLM, torch.optim.Optimizer, torch.Tensor]:
    """A Llama of 4 layers, 256 wide, its optimizer, and a batch of 2 x 256 tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4
    )
    model = LlamaForCausalLM(config).to(device)
    return model, torch.optim.AdamW(model.parameters(), fused=True), torch.randint(4096, (2, 256)).to(device)


def step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, ids: torch.Tensor) -> float:
    """Milliseconds of forward, backward and update."""
    began = time.perf_counter()
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    start("M3 Max 36GB")
    trainers = {device: trainer(device) for device in ("cpu", "mps")}
    times: dict[str, list[float]] = {device: [] for device in trainers}
    for index in range(WARM + STEPS):
        for device, parts in trainers.items():
            taken = step(*parts)
            if index >= WARM:
                times[device].append(taken)
    cpu, mps = (statistics.median(times[device]) for device in ("cpu", "mps"))
    print(f"{STEPS} steps each: cpu {cpu:.1f} ms, simulated mps {mps:.1f} ms, ratio {mps / cpu:.2f}")


if __name__ == "__main__":
    main()
