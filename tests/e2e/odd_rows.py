"""Fine-tunes on rows that are empty, too long or no text. Run by the tests:

python -m tests.e2e.odd_rows (trl|unsloth) MODEL OUT.json

OUT: for each data set the rows' lengths in tokens and the losses, or the error.
"""

import sys

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")
STACK, MODEL, OUT = sys.argv[1:]
if STACK == "unsloth":
    import unsloth  # noqa: F401

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from tests.e2e.text import rows

LENGTH = 32
TEXTS = rows(3, 2)
DATA: dict[str, list[Any]] = {
    "empty": ["", *TEXTS],
    "overlong": ["word " * 3000, *TEXTS],
    "missing": [None, *TEXTS],
    "numbers": [1, 2, 3, 4],
}


def model() -> tuple[Any, Any, dict[str, Any]]:
    """Model, tokenizer and the argument that makes the adapter, as a script of the stack has them."""
    if STACK == "trl":
        adapter = {"peft_config": LoraConfig(r=4, target_modules=["q_proj"])}
        return AutoModelForCausalLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL), adapter
    from unsloth import FastLanguageModel

    loaded, tokenizer = FastLanguageModel.from_pretrained(
        MODEL, max_seq_length=LENGTH, dtype=torch.float32, load_in_4bit=False
    )
    return FastLanguageModel.get_peft_model(loaded, r=4, target_modules=["q_proj"], lora_dropout=0), tokenizer, {}


def train(texts: list[Any]) -> dict[str, Any]:
    """Two steps on the texts."""
    loaded, tokenizer, adapter = model()
    args = SFTConfig(
        output_dir=OUT + ".trainer",
        max_length=LENGTH,
        max_steps=2,
        per_device_train_batch_size=2,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=False,
        disable_tqdm=True,
    )
    data = Dataset.from_dict({"text": texts})
    trainer = SFTTrainer(model=loaded, processing_class=tokenizer, train_dataset=data, args=args, **adapter)
    lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
    trainer.train()
    return {"lengths": lengths, "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]}


def main() -> None:
    results: dict[str, Any] = {}
    for name, texts in DATA.items():
        try:
            results[name] = train(texts)
        except Exception as error:  # noqa: BLE001 - it is the result
            results[name] = {"error": [type(error).__name__, str(error)]}
    Path(OUT).write_text(json.dumps(results))


if __name__ == "__main__":
    main()
