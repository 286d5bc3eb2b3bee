"""What is done with a release, in a process of its own that has its libraries: trainings, answers, files. Run by the
command:

    python -m tests.versions.exercise SPEC.json

SPEC as for `tests.e2e.trainers`, with ``stack`` "unsloth" or "trl". Beside what that writes, the trained models of
`SAVED` leave what they answer, their adapter, and themselves merged.
"""

from __future__ import annotations

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")

# isort: split
from tests.e2e import torchvision_python

torchvision_python.load()

# isort: split
import gc
import json
from pathlib import Path
from typing import Any

import torch

from patcher.engine.ledger import LEDGER
from patcher.engine.model import State
from tests.e2e import trainers
from tests.versions.plan import PROMPTS, SAVED, TOKENS


def answers(model: Any, tokenizer: Any, out: str) -> dict[str, Any]:
    """The tokens that the model adds to the prompts, greedily; leaves adapter and merged model in ``out``."""
    if trainers.UNSLOTH:
        from unsloth import FastLanguageModel

        FastLanguageModel.for_inference(model)
    model.eval()
    tokens = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt").to("mps")
        whole = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, use_cache=True)
        tokens.append(whole[0, inputs["input_ids"].shape[1] :].tolist())
    model.save_pretrained(f"{out}/adapter")
    if trainers.UNSLOTH:
        model.save_pretrained_merged(f"{out}/merged", tokenizer, save_method="merged_16bit")
    else:
        model.merge_and_unload().save_pretrained(f"{out}/merged")
    return {"tokens": tokens}


def report() -> dict[str, list[str]]:
    """The changes by what the report says of them."""
    found: dict[str, list[str]] = {}
    for entry in LEDGER.entries():
        found.setdefault(entry.state.value, []).append(entry.change.key)
    found.pop(State.PENDING.value, None)
    return found


if __name__ == "__main__":
    gc.freeze()
    for kind, precision in trainers.SPEC["runs"]:
        after = answers if (kind, precision) in SAVED else trainers.nothing
        result = trainers.finished(kind, precision, after)
        torch.save(result, f"{trainers.SPEC['out']}/{kind}-{precision}.pt")
    (Path(trainers.SPEC["out"]) / "report.json").write_text(json.dumps(report()))
