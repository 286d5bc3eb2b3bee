"""What the simulated device costs: a training step of the demo on it, as a ratio to plain CPU torch.

    python benchmarks/bench_simulator.py [--pairs N] [--small] [--attention sdpa|eager]

The step: LoRA (rank 16 on all seven projections) on a Llama of SmolLM2-135M's shape with random weights, 2 rows of 128
tokens, forward, backward, fused AdamW, one thread. Steps on the CPU and on the device alternate, so that what else the
machine does meets both; the ratio of each pair is taken, and the median of the ratios is the result. CPU time of the
process is shown beside elapsed time, and is the one to look at on a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from patcher.simulator import start

SMOLLM2_135M = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
SMALL = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ROWS, TOKENS, WARM = 2, 128, 1


class Trainer:
    """A model on one device with its optimizer and a batch."""

    def __init__(self, device: str, shape: dict[str, int | bool], attention: str) -> None:
        torch.manual_seed(0)
        base = LlamaForCausalLM(LlamaConfig(**shape, attn_implementation=attention)).to(device)
        self.model = get_peft_model(base, LoraConfig(r=16, lora_alpha=16, target_modules=PROJECTIONS))
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, fused=True)
        self.ids = torch.randint(int(shape["vocab_size"]), (ROWS, TOKENS)).to(device)

    def step(self) -> tuple[float, float]:
        """Forward, backward and update; milliseconds elapsed and of CPU time."""
        elapsed, worked = time.perf_counter(), time.process_time()
        self.model(input_ids=self.ids, labels=self.ids).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return (time.perf_counter() - elapsed) * 1e3, (time.process_time() - worked) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--small", action="store_true", help="4 layers of 256: what one operator costs shows more")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    device = start("M3 Max 36GB")
    trainers = {
        where: Trainer(where, SMALL if chosen.small else SMOLLM2_135M, chosen.attention) for where in ("cpu", "mps")
    }
    times: dict[str, list[tuple[float, float]]] = {where: [] for where in trainers}
    for index in range(WARM + chosen.pairs):
        device.reset_operator_counts()
        for where in ("cpu", "mps") if index % 2 else ("mps", "cpu"):
            taken = trainers[where].step()
            if index >= WARM:
                times[where].append(taken)
    operators = sum(device.operator_counts().values())
    print(f"{chosen.pairs} pairs of steps, {operators} operators in a step")
    for column, name in enumerate(("elapsed", "CPU time")):
        cpu, mps = ([step[column] for step in times[where]] for where in ("cpu", "mps"))
        ratio = statistics.median(b / a for a, b in zip(cpu, mps, strict=True))
        print(
            f"{name}: cpu {statistics.median(cpu):.0f} ms, simulated mps {statistics.median(mps):.0f} ms,"
            f" ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
