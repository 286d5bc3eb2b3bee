"""Exports models and adapters on the simulated Mac, as Unsloth scripts do. Run by the tests:

    python -m tests.e2e.export_gguf FOLDER

FOLDER has ``SmolLM2`` (examples/prepare_smollm2.py) and importance.dat for it, ``llama`` and ``llama16``
(`tests.e2e.models`, fp32 and bf16), and ``from-peft`` (an adapter of plain PEFT for ``llama``); everything is written
below it, and result.json last.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")

from tests.e2e import hub  # the Hub is replaced before anybody copies a name out of it

RECORDED = hub.record()

import torch
from safetensors.torch import save_file
from unsloth import FastLanguageModel
from unsloth.chat_templates import get_chat_template

PROMPT = "The capital of France is"
METHODS = ["f16", "q8_0", "q4_k_m"]
REFUSED: dict[str, str] = {}
ROWS = torch.arange(3, 67).view(2, 32)
"""Token rows for the small model."""


def load(source: Path, dtype: torch.dtype, **options: Any) -> tuple[Any, Any]:
    options = {"load_in_4bit": False, "max_seq_length": 256, **options}
    return FastLanguageModel.from_pretrained(str(source), dtype=dtype, **options)


def adapted(model: Any) -> Any:
    """The model with a new adapter that does something: the second matrix is zero when it is made."""
    model = FastLanguageModel.get_peft_model(model, r=8, lora_alpha=16, lora_dropout=0, random_state=3407)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.01 * torch.randn(parameter.shape))
    return model


def dump(model: Any, file: Path) -> None:
    """Logits for `ROWS`, and every adapter matrix as it lies on mps."""
    with torch.no_grad():
        found = {"logits": model(input_ids=ROWS.to("mps")).logits.float().cpu()}
    found |= {name: p.detach().cpu().contiguous() for name, p in model.named_parameters() if "lora_" in name}
    save_file(found, file)


def refusal(model: Any, *arguments: Any, **options: Any) -> str:
    """What `save_pretrained_gguf` says to a wish that cannot be fulfilled."""
    try:
        model.save_pretrained_gguf(*arguments, **options)
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


def gguf(folder: Path) -> dict[str, Any]:
    """SmolLM2 with an adapter: three files and a Modelfile, one with an importance matrix, and the adapter."""
    model, tokenizer = load(folder / "SmolLM2", torch.float16)
    tokenizer = get_chat_template(tokenizer, "chatml")
    model = adapted(model)
    with torch.no_grad():
        rows = tokenizer(PROMPT, return_tensors="pt").input_ids
        save_file({"logits": model(input_ids=rows.to("mps")).logits.float().cpu()}, folder / "ours.safetensors")
    out = str(folder / "export")
    found: dict[str, Any] = model.save_pretrained_gguf(out, tokenizer, quantization_method=METHODS)
    low = {"quantization_method": "iq3_xxs", "imatrix_file": str(folder / "importance.dat")}
    found["low"] = model.save_pretrained_gguf(str(folder / "low"), tokenizer, **low)["gguf_files"]
    adapter = str(folder / "adapter-gguf")
    found["adapter"] = model.save_pretrained_gguf(adapter, tokenizer, save_method="lora", quantization_method="f16")
    return found


def adapters(folder: Path) -> None:
    """An adapter of plain PEFT is read, trained for three steps and saved in both of Unsloth's ways."""
    model, tokenizer = load(folder / "from-peft", torch.float32)
    dump(model, folder / "read.safetensors")
    model = FastLanguageModel.for_training(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(input_ids=ROWS.to("mps"), labels=ROWS.to("mps")).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder / "trained")
    model.save_pretrained_merged(str(folder / "trained-lora"), tokenizer, save_method="lora")
    dump(FastLanguageModel.for_inference(model), folder / "trained.safetensors")


def merged(folder: Path) -> None:
    """The merged 16-bit models of a 16-bit and a 4-bit base, and pushes of the first."""
    for kind in ("16bit", "4bit"):
        model, tokenizer = load(folder / "llama16", torch.bfloat16, load_in_4bit=kind == "4bit")
        model = adapted(model)
        model.save_pretrained(folder / f"adapter-{kind}")
        model.save_pretrained_merged(str(folder / f"merged-{kind}"), tokenizer, save_method="merged_16bit")
        if kind == "16bit":
            pushes(model, tokenizer)
            for method in ("q7_z", "iq2_xxs"):
                REFUSED[method] = refusal(model, str(folder / "refused"), tokenizer, quantization_method=method)


def pushes(model: Any, tokenizer: Any) -> None:
    """The ways of Unsloth and of PEFT to the Hub, with a token that is none."""
    common = {"token": "hf_none", "private": True, "commit_message": "a message"}
    model.push_to_hub("someone/adapter", **common)
    tokenizer.push_to_hub("someone/adapter", **common)
    model.push_to_hub_merged("someone/merged", tokenizer, save_method="merged_16bit", **common)
    model.push_to_hub_merged("someone/lora", tokenizer, save_method="lora", **common)


def main(folder: Path) -> None:
    os.chdir(folder)
    adapters(folder)
    merged(folder)
    result = {**gguf(folder), "hub": RECORDED, "refused": REFUSED}
    (folder / "result.json").write_text(json.dumps(result, default=str))


if __name__ == "__main__":
    gc.freeze()  # Unsloth collects garbage a dozen times for each model, with all modules
    main(Path(sys.argv[1]).resolve())
