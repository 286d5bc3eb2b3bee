"""The models that the trainers are given and their start values, the same on the simulated Mac and on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.e2e.models import VOCABULARY, save, tokenizer

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
T5_MODULES = ["q", "k", "v", "o", "wi", "wo"]


def prepare(folder: Path) -> None:
    """Writes the models, with weights that bf16 holds, and the start values of what is trained.

    B of LoRA is not zero, so that the reference of DPO and KTO is not the base model. Start values are bf16's too:
    TRL keeps the adapters of 4-bit models in it.
    """
    torch.manual_seed(1)
    config = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    special = {"pad_token_id": 2, "eos_token_id": 1, "decoder_start_token_id": 2}
    T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, **config, **special)).save_pretrained(folder / "t5")
    tokenizer().save_pretrained(folder / "t5")
    save("llama", folder)
    for name in ("t5", "llama"):
        file = folder / name / "model.safetensors"
        save_file({key: rounded(value) for key, value in load_file(file).items()}, file, {"format": "pt"})
        kinds = AutoModelForSeq2SeqLM if name == "t5" else AutoModelForCausalLM
        quantized = kinds.from_pretrained(folder / name, dtype=torch.float32, quantization_config=nf4(torch.float32))
        quantized.save_pretrained(folder / f"{name}-bnb-4bit")
        tokenizer().save_pretrained(folder / f"{name}-bnb-4bit")
    for kind in ("sft", "seq2seq", "reward"):
        peft = with_adapter(loaded(folder, kind, "float32")[0], kind)
        trained = {name: p for name, p in peft.named_parameters() if p.requires_grad}
        values = {
            name: rounded(torch.randn(p.shape) * (0.05 if "lora_" in name else 0.1)) for name, p in trained.items()
        }
        save_file(values, folder / f"{start_of(kind)}.safetensors")


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.bfloat16().float().contiguous()


def start_of(kind: str) -> str:
    return kind if kind in ("seq2seq", "reward") else "adapter"


def loaded(folder: Path, kind: str, precision: str) -> tuple[Any, Any]:
    """Model and tokenizer as transformers loads them; where the model goes is left to transformers."""
    options: dict[str, Any] = {"dtype": dtype_of(precision)}
    if precision == "nf4-bfloat16":
        options["quantization_config"] = nf4(torch.bfloat16)
    if kind == "sft_gemma2":
        options["attn_implementation"] = "eager"  # the others leave out the cap of its attention logits
    if kind == "reward":
        kinds, options["num_labels"] = AutoModelForSequenceClassification, 1
    else:
        kinds = AutoModelForSeq2SeqLM if kind == "seq2seq" else AutoModelForCausalLM
    source = checkpoint(folder, kind, precision)
    return kinds.from_pretrained(source, **options), AutoTokenizer.from_pretrained(source)


def dtype_of(precision: str) -> torch.dtype:
    """The dtype that is computed in."""
    half = {"bfloat16": torch.bfloat16, "nf4-bfloat16": torch.bfloat16, "float16": torch.float16}
    return half.get(precision, torch.float32)


def checkpoint(folder: Path, kind: str, precision: str) -> Path:
    """The folder to load from: "nf4" is a checkpoint in 4 bit, "nf4-bfloat16" is quantized as it is loaded."""
    name = {"seq2seq": "t5", "sft_gemma2": "gemma2"}.get(kind, "llama")
    return folder / (f"{name}-bnb-4bit" if precision == "nf4" else name)


def nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """What Unsloth's load_in_4bit=True means. T5's wo stays in fp32, as in all of transformers."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head", "score", "wo"],
    )


def compute_as_on_a_gpu(model: Any) -> None:
    """Keeps bitsandbytes on the CPU from products in bf16, which it has nowhere else."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def adapter_config(kind: str) -> LoraConfig:
    """LoRA on every projection."""
    task = {"seq2seq": "SEQ_2_SEQ_LM", "reward": "SEQ_CLS"}.get(kind, "CAUSAL_LM")
    modules = T5_MODULES if kind == "seq2seq" else MODULES
    return LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=modules, task_type=task)


def with_adapter(model: Any, kind: str) -> Any:
    """The model with a fresh adapter."""
    return get_peft_model(model, adapter_config(kind))


def with_start_values(folder: Path, kind: str, model: Any) -> Any:
    """The model with the start values of this kind in all that is trained."""
    start = load_file(folder / f"{start_of(kind)}.safetensors")
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if trained.keys() != start.keys():
        raise SystemExit(f"{kind}: trained parameters differ: {sorted(trained.keys() ^ start.keys())[:4]}")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(start[name])
    return model
