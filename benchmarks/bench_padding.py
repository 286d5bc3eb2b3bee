"""What short rows take: real tokens for each kernel and each byte, in padded rows, without padding, and packed.

    python benchmarks/bench_padding.py [--ways unsloth transformers]

The model and its LoRA are those of bench_step.py, on the simulated Mac's meter; the second step is counted. Rows are as
long as those of Alpaca: 84 tokens in the mean (quantiles of a log-normal distribution with sigma 0.75, in one order).
A padded batch has 8 rows, or 2 as in Unsloth's notebooks, each as long as the longest; without padding the same 8 rows
are one row; packed is one row of as many as fit into 2048 tokens. Attention runs as shaders, as on a Mac that has
admitted them, and in torch, as on one that has not; everything else runs in torch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from math import exp
from pathlib import Path
from random import Random
from statistics import NormalDist
from typing import Any

from bench_step import MIB, WIDTH, stock, with_unsloth

MEAN, SIGMA, ROWS, LONGEST = 84, 0.75, 256, 2048
KINDS = {"padded, 2 rows": 2, "padded, 8 rows": 8, "the same 8 rows without padding": 8, "packed to 2048 tokens": ROWS}
WAYS = {"unsloth": "Unsloth", "transformers": "transformers + PEFT"}


def lengths() -> list[int]:
    """Of `ROWS` rows, in the order in which they are taken."""
    normal = NormalDist(0, SIGMA)
    found = [exp(normal.inv_cdf((index + 0.5) / ROWS)) for index in range(ROWS)]
    found = [max(2, round(length * MEAN * ROWS / sum(found))) for length in found]
    Random(0).shuffle(found)
    return found


def rows_of(kind: str) -> list[int]:
    """The lengths of a batch."""
    taken: list[int] = []
    for length in lengths()[: KINDS[kind]]:
        if not kind.startswith("packed") or sum(taken) + length <= LONGEST:
            taken.append(length)
    return taken


def batch(kind: str, packed_lengths: bool) -> dict[str, Any]:
    """What a collator makes of the rows; Unsloth's adds their lengths."""
    import torch

    rows = rows_of(kind)
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, WIDTH["vocab_size"], (length,), generator=generator) for length in rows]
    if kind.startswith("padded"):
        made = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=2)
        mask = (torch.arange(made.shape[1]) < torch.tensor(rows)[:, None]).long()
        return {"input_ids": made, "attention_mask": mask, "labels": made.masked_fill(mask == 0, -100)}
    positions = torch.cat([torch.arange(length) for length in rows])[None]
    made = torch.cat(ids)[None]
    more = {"packed_seq_lengths": torch.tensor(rows, dtype=torch.int32)} if packed_lengths else {}
    return {"input_ids": made, "position_ids": positions, "labels": made.masked_fill(positions == 0, -100), **more}


def measure(way: str, folder: Path) -> dict[str, Any]:
    """Kernels, MiB and extra peak of a step of each kind."""
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")
    if way == "unsloth":
        import unsloth  # noqa: F401
    import torch

    from patcher.replacements.transformers.flash_attention import take_packed_rows
    from patcher.simulator.meter import Meter

    model = with_unsloth(folder, 2, False) if way == "unsloth" else stock(folder, 2, False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step(inputs: dict[str, Any]) -> None:
        with torch.autocast("mps", dtype=torch.bfloat16):
            loss = model(**inputs, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    found = {}
    for kind in KINDS:
        inputs = {name: tensor.to("mps") for name, tensor in batch(kind, way == "unsloth").items()}
        take_packed_rows(model, inputs)
        step(inputs)
        held = torch.mps.current_allocated_memory()
        with Meter(modules=False) as meter:
            step(inputs)
        usage = meter.usage()
        moved = (usage.bytes_read + usage.bytes_written) / MIB
        found[kind] = [sum(rows_of(kind)), usage.dispatches, moved, (usage.peak_bytes - held) / MIB]
    return found


def in_process(way: str, folder: str, force: str) -> dict[str, Any]:
    """What `measure` finds in a process of its own."""
    variables = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "PATCHER_FORCE": force, "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, __file__, "--process", way, folder]
    done = subprocess.run(command, env=variables | os.environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr[-3000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS))
    parser.add_argument("--process", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.process:
        print(json.dumps(measure(asked.process[0], Path(asked.process[1]))))
        return
    print("| | attention | real tokens | kernels | MiB moved | MiB of extra peak | tokens / kernel | tokens / MiB |")
    print(f"|{'---|' * 8}")
    with tempfile.TemporaryDirectory() as folder:
        for way in asked.ways:
            for variant, force in (("shaders", "metal:attention"), ("torch", "torch:attention")):
                for kind, (tokens, kernels, moved, peak) in in_process(way, folder, force).items():
                    counts = f"{tokens} | {kernels} | {moved:.0f} | {peak:.0f}"
                    rates = f"{tokens / kernels:.2f} | {tokens / moved:.3f}"
                    print(f"| {WAYS[way]}, {kind} | {variant} | {counts} | {rates} |")


if __name__ == "__main__":
    main()
