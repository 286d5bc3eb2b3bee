"""Trains a small Llama with Mistral's vocabulary on a simulated M1 that has every bug of its kind, and on the CPU.

Run by the tests, in a process of its own: ``python -m tests.changes.torch.guarded_training FILE``.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
from pathlib import Path

from patcher import patch_for_mac

HANDLE = patch_for_mac(simulate="M1 8GB")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from patcher.simulator.faults import FAULTS, inject  # noqa: E402

VOCABULARY = 32768
FAULTY = [fault.name for fault in FAULTS.values() if fault.guard is not None]


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, attention_dropout=0.0, attention_bias=True, **small))


def train(network: nn.Module, device: str, tokens: Tensor) -> list[float]:
    """Two steps; the losses, and the norm of the first gradient of each weight below the vocabulary."""
    network = copy.deepcopy(network).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    found: list[float] = []
    for step in range(2):
        batch = tokens + step
        on_device = batch.to(device, non_blocking=True, copy=True)
        batch.zero_()  # as a loader does that uses its memory again
        loss = network(input_ids=on_device, labels=on_device).loss
        loss.backward()
        found.append(loss.item())
        if step == 0:
            found += [p.grad.norm().item() for p in network.model.layers.parameters() if p.grad is not None]
        optimizer.step()
        optimizer.zero_grad()
    return found


def main() -> None:
    network, tokens = model(), torch.randint(0, VOCABULARY - 2, (2, 9), generator=torch.Generator().manual_seed(1))
    outcomes = {"cpu": train(network, "cpu", tokens)}
    with inject(*FAULTY):
        outcomes["guarded"] = train(network, "mps", tokens)
        HANDLE.undo()
        outcomes["bare"] = train(network, "mps", tokens)
    Path(sys.argv[1]).write_text(json.dumps(outcomes))


if __name__ == "__main__":
    logging.getLogger("patcher").setLevel(logging.ERROR)
    main()
