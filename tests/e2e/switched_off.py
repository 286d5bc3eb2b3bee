"""Switches changes off, and tells what becomes of the imports, a training step and the undoing.

python -m tests.e2e.switched_off FOLDER OUT.json [NAMES ...]

Each of NAMES is a list for ``without=`` with commas between; without any it is every change for itself. FOLDER gets a
model. Every list has a copy of this process to itself, which has imported what no change is for, and torch: torch is
patched late then, which it bears, and the rest is imported afresh. A change of Unsloth's or of a library that it
changes, too, has its step with Unsloth; one of torch's its step with transformers and PEFT. Wrong is what is left after
the undoing, and an error without a change that training can do without.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from patcher import patch_for_mac
from patcher.changes import catalogue
from patcher.engine import imports
from patcher.engine.choice import one_for_each_target
from patcher.engine.model import Patch
from tests.e2e import forks

OURS = ("patcher", "tests", "__main__", "__mp_main__")
REPLACEMENTS = "/patcher/replacements/"


def step(folder: Path) -> float:
    """The loss of one step of a LoRA as a script for CUDA trains it with transformers and PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    from tests.e2e.text import rows

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(task_type="CAUSAL_LM"))
    encoded = (tokenizer(text)["input_ids"] for text in rows(2, 1))
    data = [{"input_ids": ids, "labels": ids} for ids in encoded]
    arguments = TrainingArguments(**_arguments(folder), per_device_train_batch_size=1, bf16=True)
    trainer = Trainer(model=model, args=arguments, train_dataset=data)
    trainer.train()
    torch.cuda.empty_cache()
    return _loss(trainer)


def step_of_unsloth(folder: Path) -> float:
    """The loss of one step of a LoRA as an Unsloth script trains it."""
    import unsloth  # noqa: F401
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from unsloth import FastLanguageModel

    from tests.e2e.text import rows

    model, tokenizer = FastLanguageModel.from_pretrained(str(folder), max_seq_length=64, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(model, r=8, lora_alpha=16, use_gradient_checkpointing="unsloth")
    arguments = SFTConfig(
        **_arguments(folder),
        per_device_train_batch_size=2,
        max_length=64,
        dataset_text_field="text",
        optim="adamw_8bit",
    )
    data = Dataset.from_dict({"text": rows(4, 3)})
    trainer = SFTTrainer(model=model, processing_class=tokenizer, args=arguments, train_dataset=data)
    trainer.train()
    return _loss(trainer)


def _arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "out"),
        "max_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }


def _loss(trainer: Any) -> float:
    return float(next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry))


def account(folder: Path, names: str, report: Callable[[Any], None]) -> None:
    """Reports how far it came without the changes of these names, what it ended with, and what is left after undo."""
    began, quiet = time.process_time(), io.StringIO()
    found: dict[str, Any] = {"without": names, "loss": None, "error": None, "left": None}
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        try:
            handle = patch_for_mac(simulate="M3 Max 36GB", without=names.split(","))
            entries = [e.change for e in handle.report().entries if e.detail == "by the user"]
            found["off"] = [change.key for change in entries]
            found["loss"] = (step if {c.distribution for c in entries} == {"torch"} else step_of_unsloth)(folder)
        except Exception as error:  # noqa: BLE001 - of any library: it is what this asks for
            found["error"] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            found["trace"] = traceback.format_exc()[-1500:]
        handle.undo()
        found["left"] = left()
    report({**found, "seconds": time.process_time() - began})


def left() -> list[str]:
    """Functions of ours that other people's modules still hold, and our finders on sys.meta_path.

    Not those that upstream lacks and that somebody has copied: there is nothing to put back.
    """
    added = {c.qualname.rpartition(".")[2] for c in catalogue() if isinstance(c, Patch) and c.adds}
    held = [
        f"{place}.{name}"
        for place, module in list(sys.modules.items())
        if isinstance(module, ModuleType)
        for name, value in list(vars(module).items())
        if isinstance(value, FunctionType) and REPLACEMENTS in value.__code__.co_filename
        if place.partition(".")[0] not in OURS and value.__name__ not in added
    ]
    return held + [type(finder).__name__ for finder in sys.meta_path if isinstance(finder, imports.Finder)]


def warm() -> None:
    """Imports what takes long and what no change is for."""
    import aiohttp  # noqa: F401
    import datasets  # noqa: F401
    import networkx  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import sympy  # noqa: F401
    import torch  # noqa: F401

    gc.freeze()  # Unsloth collects garbage for each trainer that it patches


def main(folder: Path, out: Path, lists: list[str]) -> int:
    """Writes all accounts to ``out`` as they come; 1 where one is not as it should be, else 0."""
    required = {change.key for change in catalogue() if change.required}
    forks.result(lambda report: report(_save(folder)))
    warm()
    found, wrong = [], 0
    for names in lists or [change.key for change in one_for_each_target(catalogue())]:
        found.append(forks.result(partial(account, folder / "llama", names)))
        out.write_text(json.dumps(found, indent=1))
        ended = found[-1]["error"] or f"loss {found[-1]['loss']:.4f}"
        bad = bool(found[-1]["left"]) or (found[-1]["error"] is not None and not required & set(found[-1]["off"]))
        wrong += bad
        note = "WRONG: " if bad else ""
        print(f"{len(found)} {names}: {note}{ended} {found[-1]['left'] or ''}", file=sys.stderr, flush=True)
    print(f"{len(found)} switched off, {wrong} wrong", file=sys.stderr)
    return 1 if wrong else 0


def _save(folder: Path) -> str:
    from tests.e2e.models import save

    return str(save("llama", folder))


if __name__ == "__main__":
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(Path(sys.argv[1]) / "compiled"))
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
