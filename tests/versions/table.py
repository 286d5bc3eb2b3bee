"""The kept results as the tables of the page of versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.versions.locks import names
from tests.versions.trial import judged

LIBRARIES = ("transformers", "trl", "peft", "accelerate", "bitsandbytes")
COLUMNS = (
    "release",
    *LIBRARIES,
    "SFT",
    "gradients",
    "Gemma 2",
    "DPO",
    "GRPO",
    "bf16",
    "4 bit",
    "tokens",
    "demo",
    "result",
)


def rows(folder: Path) -> Iterator[str]:
    """A header and a line for each result, the oldest release first."""
    yield f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"
    files = (folder / f"{name}.json" for name in names())
    for file in files:
        if file.exists():
            yield row(judged(json.loads(file.read_text())))


def row(result: dict[str, Any]) -> str:
    """Distances of the losses; of GRPO the reward; whether Llama's and Gemma 2's tokens are those of the CPU.

    Of the demo its loss over the first five steps and over the last.
    """
    runs: dict[str, Any] = result["runs"]
    losses = ("sft-float32", "sft_gemma2-float32", "dpo-float32", "sft-bfloat16", "sft-nf4-bfloat16")
    sft, gemma, dpo, half, four = (_exact(runs.get(name, {}), "loss") for name in losses)
    reward = runs.get("grpo_even-bfloat16", {}).get("reward")
    cells = (
        result["name"],
        *(result["pins"].get(library, "") for library in LIBRARIES),
        *(sft, _exact(runs.get("sft-float32", {}), "gradient"), gemma, dpo),
        "" if reward is None else f"{reward:.2f}",
        *(half, four, _tokens(runs), _demo(result.get("demo", {}))),
        "; ".join([*(result["problems"] or ["trains"]), *result.get("upstream", ())]),
    )
    return f"| {' | '.join(cells)} |"


def _exact(run: dict[str, Any], what: str) -> str:
    return f"{run[what]:.0e}" if what in run else ""


def _tokens(runs: dict[str, Any]) -> str:
    said = [runs[name]["tokens"] for name in ("sft-float32", "sft_gemma2-float32") if "tokens" in runs.get(name, {})]
    return ", ".join("equal" if equal else "other" for equal in said)


def _demo(shown: dict[str, Any]) -> str:
    losses = shown.get("losses", [])
    return f"{sum(losses[:5]) / 5:.2f} to {sum(losses[-5:]) / 5:.2f}" if losses else ""
