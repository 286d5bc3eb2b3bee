"""Kernels of a LoRA step of a Llama, and of each function that is replaced, with replacements and as shipped.

    python benchmarks/bench_layer.py

A bf16 Llama, 256 wide, 4 heads and 2 for keys and values, with a vocabulary of 2000, LoRA of rank 8 on all its
projections, one forward and backward of 2 x 64 tokens through Unsloth without gradient checkpointing, on the simulated
Mac's meter. A layer is the difference of a model of three layers and one of two. The functions run forward and backward
on as many tokens. Replaced: with the ops' torch variants, and with their Metal variants where there are such. As
shipped: without the replacements of kernels, on torch operators and as Metal shaders. Upstream's assertions that a
tensor is on CUDA are left out (``python -O``), so that the grouped products run as shipped too; what is offered for
CUDA tensors only, such as QK-norm with RoPE, is called by its autograd function. With ``PATCHER_TRITON_CACHE=0`` the
first step compares its shaders, as in the first process on a machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

KERNELS = ",".join(
    (
        *(f"unsloth.kernels.{file}" for file in ("rms_layernorm", "layernorm", "swiglu", "geglu", "rope_embedding")),
        *(
            f"unsloth.kernels.{file}"
            for file in ("cross_entropy_loss", "qk_norm_rope", "fused_add_rms_layernorm", "moe")
        ),
        "trl.kernels",
    )
)
"""The changes that replace launches."""

WAYS = {
    "replaced, torch": ("", "torch", "torch"),
    "replaced, Metal": ("", "torch", "metal"),
    "as shipped, torch": (KERNELS, "torch", "torch"),
    "as shipped, Metal": (KERNELS, "metal", "torch"),
}
"""What is left out, what runs Triton kernels, and which variants of ops run."""


def main() -> None:
    """Prints what `measure` finds for each way to run it."""
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, (without, back_end, variant) in WAYS.items():
            switches = {"PATCHER_WITHOUT": without, "PATCHER_TRITON": back_end, "UNSLOTH_RETURN_LOGITS": "1"}
            switches["PATCHER_FORCE"] = variant
            variables = os.environ | switches | {"HF_HUB_OFFLINE": "1"}
            command = [sys.executable, "-O", __file__, folder]
            done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{way}: {done.stderr[-3000:]}")
            found[way] = json.loads(done.stdout.splitlines()[-1])
            told = {name: found[way].pop(name) for name in ("loss", "steps", "launched")}
            print(f"{way}: loss {told['loss']}, launched {', '.join(told['launched'])}")
            print(f"    steps of two layers, the first and the second: {' and then '.join(told['steps'])}", flush=True)
    print(f"\n| kernels, MiB | {' | '.join(WAYS)} |\n|{'---|' * (len(WAYS) + 1)}")
    for name in found["replaced, torch"]:
        print(f"| {name} | {' | '.join('{kernels}, {MiB}'.format(**found[way][name]) for way in WAYS)} |")


def measure(folder: Path) -> dict[str, Any]:
    """Kernels and MiB of a layer, of the rest and of each function, the loss, and where Triton kernels ran."""
    from patcher import patch_for_mac

    patch_for_mac(simulate="M3 Max 36GB")
    import torch
    import unsloth  # noqa: F401

    from patcher.tiles import backends

    backends.why_not(torch.device("mps"))  # what is tried once on a machine is no part of a step
    two, three = step(folder, 2), step(folder, 3)
    layer = [c - b for b, c in zip(two[:2], three[:2], strict=True)]
    rest = [b - 2 * a for a, b in zip(layer, two[:2], strict=True)]
    where = sorted({f"{ran.kernel.rpartition('.')[2]} ({ran.back_end})" for ran in backends.launches})
    return {
        "layer": {"kernels": layer[0], "MiB": round(layer[1] / 2**20, 2)},
        "rest": {"kernels": rest[0], "MiB": round(rest[1] / 2**20, 2)},
        "loss": three[2],
        "steps": two[3],
        **{name: counted(run) for name, run in functions().items()},
        "launched": where,
    }


def counted(run: Callable[[], Any]) -> dict[str, float]:
    """Kernels and MiB of a forward and, where it has a gradient, a backward, when shaders have been compared."""
    import torch

    from patcher.simulator.meter import Meter

    first = run()
    gradient = None if first is None else torch.randn_like(first)
    for _ in range(2):
        with Meter() as meter:
            out = run()
            if out is not None:
                out.backward(gradient)
    usage = meter.usage()
    return {"kernels": usage.dispatches, "MiB": round((usage.bytes_read + usage.bytes_written) / 2**20, 2)}


def functions() -> dict[str, Callable[[], Any]]:
    """Each function that launches, on 128 tokens."""
    import torch
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction
    from trl.kernels.logprob_entropy import _LogProbEntropyFunction
    from unsloth.kernels import cross_entropy_loss, geglu, layernorm, rms_layernorm, rope_embedding, swiglu
    from unsloth.kernels import fused_add_rms_layernorm as added
    from unsloth.kernels.qk_norm_rope import Fast_QK_Norm_RoPE

    def wide(*shape: int) -> Any:
        return torch.randn(*shape, device="mps", dtype=torch.bfloat16).requires_grad_()

    X, W, b, logits, head = wide(128, 256), wide(256), wide(256), wide(128, 2000), wide(2000, 256)
    Q, K = wide(2, 4, 64, 64), wide(2, 2, 64, 64)
    cos, sin = wide(64, 64).detach(), wide(64, 64).detach()
    three = [wide(128, 688).detach() for _ in range(3)]
    labels, index = torch.randint(0, 2000, (128,), device="mps"), torch.zeros(1, dtype=torch.int32, device="mps")
    heads_q, heads_k, of_head = wide(2, 64, 4, 64), wide(2, 64, 2, 64), wide(64).detach()
    teacher, residual = (wide(128, 256).detach(), wide(2000, 256).detach()), wide(128, 256).detach()
    norm = SimpleNamespace(weight=W.detach(), variance_epsilon=1e-5)
    return {
        "RMSNorm": lambda: rms_layernorm.fast_rms_layernorm(norm, X),
        "LayerNorm": lambda: layernorm.Fast_Layernorm.apply(X, W, b, 1e-5),
        "add and RMSNorm, decoding": lambda: _nothing(
            added.fast_add_rms_layernorm_inference(X.detach().clone(), residual, W.detach(), 1e-5)
        ),
        "SwiGLU": lambda: _nothing(swiglu.swiglu_fg_kernel(*(t[None] for t in three[:2]))),
        "SwiGLU, backward": lambda: _nothing(swiglu.swiglu_DWf_DW_dfg_kernel(*three)),
        "GEGLU, exact": lambda: _nothing(geglu.geglu_exact_forward_kernel(*(t[None] for t in three[:2]))),
        "GEGLU, exact, backward": lambda: _nothing(geglu.geglu_exact_backward_kernel(*three)),
        "GEGLU, tanh": lambda: _nothing(geglu.geglu_approx_forward_kernel(*(t[None] for t in three[:2]))),
        "GEGLU, tanh, backward": lambda: _nothing(geglu.geglu_approx_backward_kernel(*three)),
        "RoPE": lambda: torch.cat(rope_embedding.Fast_RoPE_Embedding_QK.apply(Q * 1, K * 1, cos, sin, None), 1),
        "QK-norm and RoPE": lambda: torch.cat(
            Fast_QK_Norm_RoPE.apply(heads_q, heads_k, of_head, of_head, cos, sin, index, 1e-6, 1e-6, False), 2
        ),
        **grouped_products(),
        "cross entropy": lambda: cross_entropy_loss.Fast_CrossEntropyLoss.apply(logits * 1, labels, 0, 0),
        "log-probabilities": lambda: ChunkedLogProbFunction.apply(X, head, None, labels, 1.0, 2048, None, 1.0, ())[0],
        "log-probabilities and entropy": lambda: sum(
            _LogProbEntropyFunction.apply(logits[None], labels[None], 1.0, None)
        ),
        "divergence": lambda: ChunkedDivergenceFunction.apply(X, head, None, *teacher, None, 0.5)[0],
    }


def grouped_products() -> dict[str, Callable[[], Any]]:
    """The products of a mixture of 4 experts, 2 of them for each of 128 tokens, 256 wide and 128 within."""
    import torch
    from unsloth.kernels.moe.grouped_gemm import interface

    def wide(*shape: int) -> Any:
        return torch.randn(*shape, device="mps", dtype=torch.bfloat16)

    chosen = torch.randint(0, 4, (256,), generator=torch.Generator().manual_seed(2))
    sizes, places = chosen.bincount(minlength=4).int().to("mps"), chosen.argsort(stable=True).to("mps")
    X, W, dY = wide(128, 256), wide(4, 128, 256), wide(256, 128)
    first = {"permute_x": True, "permute_y": False}
    return {
        "grouped product": lambda: _nothing(interface.grouped_gemm_forward(X, W, 2, sizes, places, **first)),
        "grouped product, dX": lambda: _nothing(interface.grouped_gemm_dX(dY, W, places, sizes, 2, **first)),
        "grouped product, dW": lambda: _nothing(interface.grouped_gemm_dW(X, dY, sizes, places, 2, **first)),
    }


def _nothing(_: Any) -> None:
    """Takes what has no gradient."""


def step(folder: Path, layers: int) -> tuple[int, int, float, list[str]]:
    """Kernels, bytes and loss of a new model's second forward and backward; what the first and it take."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig
    from unsloth import FastLanguageModel

    from patcher.simulator.meter import Meter
    from patcher.verify import text

    path = folder / str(layers)
    if not path.is_dir():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=2000, hidden_size=256, intermediate_size=688, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=2,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(path)
        text.tokenizer(["a few words", "and some more"], 300).save_pretrained(path)
    model, _ = FastLanguageModel.from_pretrained(str(path), dtype=torch.bfloat16, load_in_4bit=False)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = FastLanguageModel.get_peft_model(
        model, r=8, lora_alpha=16, target_modules=targets, use_gradient_checkpointing=False
    )
    ids = torch.randint(3, 2000, (2, 64), generator=torch.Generator().manual_seed(1)).to("mps")
    costs = []
    for _ in range(2):
        model.zero_grad()
        began = time.perf_counter()
        with Meter() as meter, torch.autocast("mps", dtype=torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
        costs.append(f"{time.perf_counter() - began:.2f} s and {meter.usage().peak_bytes / 2**20:.1f} MiB")
    total = meter.usage()
    return total.dispatches, total.bytes_read + total.bytes_written, loss.item(), costs


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]))))
    else:
        main()
