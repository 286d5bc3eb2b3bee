"""Fine-tunes on rows that are empty, too long or no text, and with weights that become NaN. Run by the tests:

python -m tests.e2e.odd_rows (trl|unsloth) MODEL OUT.json

OUT: for each data set the rows' lengths in tokens and the losses, or the error.
"""

import gc
import sys

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")
STACK, MODEL, OUT = sys.argv[1:]
if STACK == "unsloth":
    import unsloth  # noqa: F401

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from tests.e2e.text import rows

LENGTH = 32
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TEXTS = rows(3, 2)
DATA: dict[str, list[Any]] = {
    "empty": ["", *TEXTS],
    "empty later": [TEXTS[0], "", *TEXTS[1:]],
    "overlong": ["word " * 3000, *TEXTS],
    "missing": [None, *TEXTS],
    "numbers": [1, 2, 3, 4],
    "bytes": [text.encode() for text in TEXTS * 2],
    "nested": [[[text]] for text in TEXTS * 2],
}


def model() -> tuple[Any, Any, dict[str, Any]]:
    """Model, tokenizer and the argument that makes the adapter, as a script of the stack has them."""
    if STACK == "trl":
        adapter = {"peft_config": LoraConfig(r=4, target_modules=MODULES)}
        return AutoModelForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL), adapter
    from unsloth import FastLanguageModel

    loaded, tokenizer = FastLanguageModel.from_pretrained(
        MODEL, max_seq_length=LENGTH, dtype=torch.float32, load_in_4bit=False
    )
    return FastLanguageModel.get_peft_model(loaded, r=4, target_modules=MODULES, lora_dropout=0), tokenizer, {}


def trainer(texts: list[Any], **more: Any) -> SFTTrainer:
    """Two steps on the texts, which stay in their order."""
    loaded, tokenizer, adapter = model()
    args = SFTConfig(
        output_dir=OUT + ".trainer",
        max_length=LENGTH,
        max_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=False,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        **more,
    )
    data = Dataset.from_dict({"text": texts})
    return SFTTrainer(
        model=loaded, processing_class=tokenizer, train_dataset=data, eval_dataset=data, args=args, **adapter
    )


def train(texts: list[Any]) -> dict[str, Any]:
    """The rows' lengths and the losses."""
    run = trainer(texts)
    lengths = [len(row["input_ids"]) for row in run.train_dataset]
    run.train()
    return {"lengths": lengths, "losses": [entry["loss"] for entry in run.state.log_history if "loss" in entry]}


class Poison(TrainerCallback):
    """After the first step the first value of a weight is NaN."""

    def __init__(self, ending: str) -> None:
        self.ending = ending

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        weight = next(weight for name, weight in model.named_parameters() if name.endswith(self.ending))
        with torch.no_grad():
            weight.flatten()[0] = float("nan")


def poisoned(ending: str) -> None:
    run = trainer(TEXTS * 2)
    run.add_callback(Poison(ending))
    run.train()


def evaluate_empty() -> None:
    run = trainer(["", *TEXTS])
    run.model.eval()
    run.evaluate()


def main() -> None:
    os.environ["PATCHER_STOP_AT_NAN"] = "1"
    scenarios = {name: partial(train, texts) for name, texts in DATA.items()}
    scenarios["evaluation"] = evaluate_empty
    scenarios["nan in a layer"] = partial(poisoned, "layers.1.mlp.down_proj.base_layer.weight")
    scenarios["nan in an adapter"] = partial(poisoned, "layers.1.self_attn.q_proj.lora_A.default.weight")
    scenarios["nan in the head"] = partial(poisoned, "lm_head.weight")
    results: dict[str, Any] = {}
    for name, scenario in scenarios.items():
        try:
            results[name] = scenario()
        except Exception as error:  # noqa: BLE001 - it is the result
            results[name] = {"error": [type(error).__name__, str(error)]}
    Path(OUT).write_text(json.dumps(results))


if __name__ == "__main__":
    gc.freeze()  # Unsloth collects garbage a dozen times for each model, with all modules
    main()
