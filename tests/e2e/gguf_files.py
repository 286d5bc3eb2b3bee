"""GGUF files of a Llama, read with the package gguf: their values in transformers, and their values as an F32 file.

`rounded` is what llama.cpp does to the inputs of a product on a CPU: to f16 for f16 weights, to blocks of 8 bits for
quantized ones (ggml-quants.c: quantize_row_q8_0, quantize_row_q8_K; ggml-cpu.c: vec_dot_type).
"""

from __future__ import annotations

import functools
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from patcher.gguf.quantize import _copy_metadata

PARTS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@functools.cache
def opened(file: Path) -> Any:
    """A reader of the file, whose metadata takes seconds to read."""
    return gguf.GGUFReader(file)


def values(tensor: Any) -> np.ndarray[Any, Any]:
    """A tensor's values in fp32, rows last."""
    shape = tuple(int(size) for size in reversed(tensor.shape))
    return np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32).reshape(shape)


def name_of(tensor: str) -> str:
    """The parameter of transformers' Llama; the embedding is the head too."""
    if not tensor.startswith("blk."):
        return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[tensor]
    _, layer, part, _ = tensor.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.weight"


def in_transformers(file: Path, folder: Path) -> tuple[Any, dict[str, str]]:
    """The model of the folder with the file's values in fp32, and the type of every parameter in the file."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    heads = {"attn_q": model.config.num_attention_heads, "attn_k": model.config.num_key_value_heads}
    state, kinds = model.state_dict(), {}
    for tensor in opened(file).tensors:
        found = torch.from_numpy(values(tensor))
        for part, count in heads.items():
            if part in tensor.name:  # GGUF has the two halves that RoPE turns interleaved
                found = found.view(count, -1, 2, found.shape[1]).transpose(1, 2).reshape(found.shape)
        state[name_of(tensor.name)].copy_(found)
        kinds[name_of(tensor.name)] = tensor.tensor_type.name
    return model, kinds


def widen(file: Path, target: Path) -> None:
    """Writes the same model with all values in fp32."""
    reader = opened(file)
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    _copy_metadata(reader, writer)
    writer.add_file_type(0)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, values(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def importance(folder: Path, rows: torch.Tensor, target: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Writes an importance matrix in llama.cpp's older format: the mean square of every input of every product."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found: dict[str, np.ndarray[Any, Any]] = {}

    def note(name: str, x: torch.Tensor) -> None:
        found[name] = x.detach().flatten(0, -2).double().pow(2).mean(0).numpy().astype("<f4")

    short = {long: part for part, long in PARTS.items()}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            _, _, layer, place = name.split(".", 3)
            tensor = f"blk.{layer}.{short[place]}.weight"
            module.register_forward_pre_hook(lambda _, inputs, tensor=tensor: note(tensor, inputs[0]))
    with torch.no_grad():
        model(rows)
    content = struct.pack("<i", len(found))
    for tensor, mean in found.items():
        content += struct.pack("<i", len(tensor)) + tensor.encode() + struct.pack("<ii", 1, mean.size) + mean.tobytes()
    target.write_bytes(content)
    return found


def rounded(x: torch.Tensor, kind: str) -> torch.Tensor:
    """The input of a product with weights of a type, as llama.cpp rounds it."""
    if kind == "F32":
        return x
    if kind == "F16":
        return x.half().float()
    if kind in ("Q4_K", "Q6_K", "IQ3_XXS", "IQ3_S"):  # 256 values: the largest becomes -127, its scale stays fp32
        blocks = x.reshape(-1, 256)
        largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
        step = largest / -127
        return (step * (blocks / step).round().clamp(max=127)).nan_to_num().reshape(x.shape)
    blocks = x.reshape(-1, 32)
    step = blocks.abs().amax(1, keepdim=True) / 127
    return ((blocks / step).round().nan_to_num() * step.half().float()).reshape(x.shape)


def round_inputs(model: Any, kinds: dict[str, str]) -> None:
    """Makes every linear layer of the model round its input, from now on."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            kind = kinds["model.embed_tokens.weight" if name == "lm_head" else f"{name}.weight"]
            module.register_forward_pre_hook(lambda _, inputs, kind=kind: (rounded(inputs[0], kind),))
