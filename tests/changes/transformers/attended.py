"""Asks small models with FlashAttention on the simulated Mac, and eager ones on the CPU; prints how far they differ.

    python -m tests.changes.transformers.attended FOLDER

FOLDER receives the models. The answer has, for each model and name of an implementation, relative differences: of the
loss of a padded batch, of all its gradients together, and of the loss of the same texts packed into one row.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from patcher import patch_for_mac

HANDLE = patch_for_mac(simulate="M3 Max 36GB")

import torch
import transformers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    Gemma2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
)
from transformers.integrations.flash_attention import flash_attention_forward
from transformers.modeling_flash_attention_utils import _flash_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from patcher.replacements.transformers.flash_attention import take_packed_rows
from patcher.simulator.meter import Meter

SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "initializer_range": 0.2,
}  # fmt: skip
GROUPED: dict[str, Any] = {**SMALL, "num_key_value_heads": 2}
MODELS = {
    "llama": LlamaConfig(**GROUPED),
    "mistral": MistralConfig(**GROUPED, sliding_window=7),
    "gemma2": Gemma2Config(**GROUPED, head_dim=16, query_pre_attn_scalar=16, sliding_window=7),
    "gpt_oss": GptOssConfig(**GROUPED, head_dim=16, num_local_experts=2, num_experts_per_tok=1, sliding_window=7),
    "bert": BertConfig(**SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
}
NAMES = {
    "llama": ("flash_attention_2", "flash_attention_3", "kernels-community/flash-attn2"),
    "gpt_oss": ("flash_attention_2", "kernels-community/vllm-flash-attn3"),
}
LENGTHS = (20, 15)


def saved(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    kind = AutoModelForMaskedLM if name == "bert" else AutoModelForCausalLM
    kind.from_config(MODELS[name]).save_pretrained(folder / name)
    return folder / name


def loaded(folder: Path, implementation: str, device: str) -> PreTrainedModel:
    kind = AutoModelForMaskedLM if folder.name == "bert" else AutoModelForCausalLM
    model: PreTrainedModel = kind.from_pretrained(folder, attn_implementation=implementation, dtype=torch.float32)
    return model.to(device).train()


def padded() -> dict[str, Tensor]:
    ids = torch.randint(3, 64, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def packed() -> dict[str, Tensor]:
    batch = padded()
    real = batch["attention_mask"].bool()
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    ids = batch["input_ids"][real][None]
    return {"input_ids": ids, "position_ids": positions, "labels": ids.masked_fill(positions == 0, -100)}


def loss(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    moved = {name: tensor.to(model.device) for name, tensor in batch.items()}
    found: Tensor = model(**moved).loss
    return found


def off(found: Tensor, exact: Tensor) -> float:
    return ((found.cpu() - exact).norm() / exact.norm()).item()


def compared(folder: Path, implementation: str) -> dict[str, Any]:
    model, exact = loaded(folder, implementation, "mps"), loaded(folder, "eager", "cpu")
    ours, theirs = loss(model, padded()), loss(exact, padded())
    ours.backward()
    theirs.backward()
    pairs = zip(model.parameters(), exact.parameters(), strict=True)
    grads = [(a.grad.flatten().cpu(), b.grad.flatten()) for a, b in pairs if a.grad is not None and b.grad is not None]
    answer: dict[str, Any] = {
        "implementation": model.config._attn_implementation,
        "loss": off(ours, theirs),
        "gradients": off(*(torch.cat(side) for side in zip(*grads, strict=True))),
    }
    if folder.name != "bert":
        answer["packed"] = off(loss(model, packed()), theirs)
    return answer


def waits(folder: Path) -> list[int]:
    """How often the host waits for the device in a forward of a packed row, of 2 layers and of 4."""
    found = []
    for layers in (2, 4):
        config = LlamaConfig(**{**GROUPED, "num_hidden_layers": layers})
        model = AutoModelForCausalLM.from_config(config, attn_implementation="flash_attention_2").to("mps")
        batch = {name: tensor.to("mps") for name, tensor in packed().items() if name != "labels"}
        with torch.no_grad(), Meter(modules=False) as meter:
            model(**batch)
        found.append(meter.usage().synchronizations)
    return found


def direct() -> dict[str, float]:
    """What calls transformers' function below the interface, as models with code of their own do."""
    q, k, v = (torch.randn(2, 20, heads, 16, generator=torch.Generator().manual_seed(heads)) for heads in (4, 2, 2))
    mask = padded()["attention_mask"]
    hidden = (torch.arange(20) > torch.arange(20)[:, None]) | (mask == 0)[:, None, None, :]
    wide = [x.double().transpose(1, 2) for x in (q, k.repeat_interleave(2, 2), v.repeat_interleave(2, 2))]
    exact = torch.nn.functional.scaled_dot_product_attention(*wide, attn_mask=~hidden).transpose(1, 2)
    real = mask.bool()
    found = _flash_attention_forward(
        *(x.to("mps") for x in (q, k, v)), mask.to("mps"), 20, True, attn_implementation="flash_attention_2"
    )
    return {"padded": off(found.cpu()[real].double(), exact[real])}


def written_anew(folder: Path) -> float:
    """In inference mode, a row of other texts in the memory of the last one: how far it is from a row that is new."""
    model = loaded(folder, "flash_attention_2", "mps").eval()
    with torch.inference_mode():
        ids = packed()["input_ids"].to("mps")
        positions = packed()["position_ids"].to("mps")
        model(input_ids=ids, position_ids=positions)
        other = torch.cat([torch.arange(9), torch.arange(positions.shape[1] - 9)])[None].to("mps")
        exact = model(input_ids=ids, position_ids=other.clone()).logits
        model(input_ids=ids, position_ids=positions)
        found = model(input_ids=ids, position_ids=positions.copy_(other)).logits
    return off(found, exact.cpu())


def main(folder: Path) -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    answers: dict[str, Any] = {}
    for name in MODELS:
        saved(folder, name)
        for implementation in NAMES.get(name, ("flash_attention_2",)):
            answers[f"{name}, {implementation}"] = compared(folder / name, implementation)
    result = {"models": answers, "waits": waits(folder), "direct": direct()}
    result["written anew"] = written_anew(folder / "llama")
    switched = loaded(folder / "llama", "sdpa", "mps")
    take_packed_rows(switched, {name: tensor for name, tensor in packed().items() if name != "labels"})
    result["switched"] = switched.config._attn_implementation
    ours = ALL_ATTENTION_FUNCTIONS["kernels-community/flash-attn2"]
    result["registered"] = ours is flash_attention_forward
    HANDLE.undo()
    result["undone"] = "kernels-community/flash-attn2" not in ALL_ATTENTION_FUNCTIONS
    result["switched back"] = switched.config._attn_implementation
    result["left"] = transformers.integrations.flash_attention.flash_attention_forward.__module__
    print("ANSWER" + json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
