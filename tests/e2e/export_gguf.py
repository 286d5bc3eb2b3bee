"""Exports a model with an adapter to GGUF on the simulated Mac, as an Unsloth script does. Run by the tests:

python -m tests.e2e.export_gguf MODEL OUT QUANTIZATION...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")

import torch
from unsloth import FastLanguageModel

PROMPT = [504, 3575, 282, 4649, 314]
"""The capital of France is: as SmolLM2's tokens."""


def main(source: str, out: Path, *quantizations: str) -> None:
    model, tokenizer = FastLanguageModel.from_pretrained(
        source, max_seq_length=256, dtype=torch.float16, load_in_4bit=False
    )
    model = FastLanguageModel.get_peft_model(model, r=8, lora_alpha=16, lora_dropout=0, random_state=3407)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zero when it is made: then the merge would show nothing
            parameter.data.copy_(0.01 * torch.randn(parameter.shape))
    result = model.save_pretrained_gguf(str(out / "model"), tokenizer, quantization_method=list(quantizations))
    (out / "result.json").write_text(json.dumps(result, default=str))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
