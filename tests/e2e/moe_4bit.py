"""Loads mixtures of experts in 4 bit through Unsloth on the simulated Mac. Run by the tests:

    python -m tests.e2e.moe_4bit FOLDER

Writes FOLDER/dequantized (a dense checkpoint), codes.safetensors and result.json.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")
import unsloth  # noqa: F401

# isort: split
import torch
from bitsandbytes import functional
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GptOssConfig, PretrainedConfig, Qwen3MoeConfig
from unsloth import FastLanguageModel

from patcher.errors import NotOnMac
from tests.e2e.models import config, tokenizer

FOLDER = Path(sys.argv[1])
TOKENS = torch.arange(3, 35)[None]


def small(kind: type[PretrainedConfig], **own: Any) -> str:
    """The folder of a checkpoint with 4 experts, 2 of them for each token."""
    common = {k: v for k, v in config("qwen3").to_dict().items() if k in ("hidden_size", "vocab_size", "head_dim")}
    common |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.08}
    folder = FOLDER / kind.model_type
    torch.manual_seed(0)
    built = kind(**common, num_experts_per_tok=2, pad_token_id=2, bos_token_id=0, eos_token_id=1, **own)
    AutoModelForCausalLM.from_config(built, dtype=torch.float32).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def load(folder: str) -> Any:
    return FastLanguageModel.from_pretrained(folder, max_seq_length=64, dtype=torch.float32, load_in_4bit=True)[0]


def dequantized(model: Any) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Every parameter as fp32 on the CPU, and the codes of those that are quantized."""
    dense, codes = {}, {}
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        if state is None:
            dense[name] = parameter.detach().float().cpu().clone()
        else:
            dense[name] = functional.dequantize_4bit(parameter.data, state).float().cpu().clone()
            codes[name] = parameter.data.cpu().clone()
    return dense, codes


def train(model: Any) -> list[float]:
    """The losses of 5 steps on the same tokens."""
    targets = ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
    model = FastLanguageModel.get_peft_model(model, r=4, target_modules=targets, random_state=0)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    rows, losses = TOKENS.to("mps"), []
    for _ in range(5):
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


def generated(model: Any) -> list[int]:
    """The tokens after a training with TRL, which leaves ``output_router_logits`` on."""
    model.config.output_router_logits = True
    FastLanguageModel.for_inference(model)
    tokens: list[int] = model.generate(TOKENS.to("mps"), max_new_tokens=4, do_sample=False)[
        0, TOKENS.shape[1] :
    ].tolist()
    return tokens


def main() -> None:
    folder = small(Qwen3MoeConfig, num_experts=4, moe_intermediate_size=64, intermediate_size=128)
    model = load(folder)
    dense, codes = dequantized(model)
    save_file(codes, FOLDER / "codes.safetensors")
    save_file(dense, FOLDER / "dequantized.safetensors")
    with torch.no_grad():
        rows = TOKENS.to("mps")
        result: dict[str, Any] = {"loss": model(input_ids=rows, labels=rows).loss.item()}
    result["trained"] = train(model)
    result["generated"] = generated(model)
    try:
        load(small(GptOssConfig, num_local_experts=4, intermediate_size=128))
    except NotOnMac as error:
        result["gpt_oss"] = str(error)
    (FOLDER / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    gc.freeze()  # Unsloth collects garbage a dozen times for each model, with all modules
    main()
