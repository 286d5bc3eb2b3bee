"""What a LoRA step takes: kernels, bytes and memory, with Unsloth under the patch, without it, and with mlx-lm.

    python benchmarks/bench_step.py [--lengths 512 2048 4096] [--ways unsloth stock mlx]

A bf16 Llama of two layers of SmolLM2-135M's width (hidden 576, 9 heads and 3 for keys and values, 1536 within,
vocabulary 49152), LoRA of rank 16 on all seven projections, batch 1, autocast to bf16 and fused AdamW, on the simulated
Mac's meter: the second step is counted. A layer is the difference of models of three layers and of two, at the
shortest length. The extra peak is what the step holds beyond what was held before it: weights, adapters, the
optimizer's state. Stock is transformers and PEFT without a patch. As shaders: with the Metal variants of ops, which a
Mac chooses once they have proved right there, and which run thread by thread here, so at the shortest length only.
mlx-lm runs on the CPU with its own trainer's loss, compiled step and checkpointing; its peak is
``mx.get_peak_memory()``, and it is left out where ``build/mlx`` has no ``mlx[cpu]`` and ``mlx-lm`` (``pip install
--target build/mlx --no-deps mlx mlx-cpu mlx-lm``). The expected time is the meter's, without checkpointing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MLX = Path(__file__).resolve().parent.parent / "build" / "mlx"
WAYS = {
    "stock": "transformers + PEFT",
    "unsloth": "Unsloth, patched",
    "shaders": "the same as shaders",
    "mlx": "mlx-lm",
}
LENGTHS = (512, 2048, 4096, 8192)
MOST_PLAIN = 4096
"""Without checkpointing, longer rows are left out: attention that holds L x L takes the memory of this machine."""

WIDTH = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
    "num_key_value_heads": 3, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
}  # fmt: skip
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MACS = ("M1 16GB", "M3 Max 36GB", "M4 Max 36GB")
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=list(WAYS))
    parser.add_argument("--process", nargs=3, metavar=("WAY", "FOLDER", "CHECKPOINTING"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.process:
        way, folder, checkpointing = asked.process
        print(json.dumps(measure(way, Path(folder), checkpointing == "True", asked.lengths)))
        return
    ways = [way for way in asked.ways if way != "mlx" or (MLX / "mlx_lm").is_dir()]
    found: dict[str, dict[bool, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ways:
            plain = [length for length in asked.lengths if length <= MOST_PLAIN]
            found[way] = {False: in_process(way, folder, False, plain[:1] if way == "shaders" else plain)}
            found[way][True] = {"lengths": {}} if way == "shaders" else in_process(way, folder, True, asked.lengths)
    print(table(found, asked.lengths))


def in_process(way: str, folder: str, checkpointing: bool, lengths: list[int]) -> dict[str, Any]:
    """What `measure` finds in a process of its own."""
    command = [sys.executable, __file__, "--lengths", *map(str, lengths), "--process", way, folder, str(checkpointing)]
    variables = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    if way == "shaders":
        variables["PATCHER_FORCE"] = "metal"
    if way == "mlx":
        variables["PYTHONPATH"] = f"{MLX}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr[-3000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def table(found: dict[str, dict[bool, dict[str, Any]]], lengths: list[int]) -> str:
    """The figures of every way as a table of Markdown."""
    rows = {
        "kernels per layer, forward and backward": [told[False].get("layer") for told in found.values()],
        "the same with the optimizer": [told[False].get("layer, optimizer") for told in found.values()],
        "kernels of the step, two layers": [told[False].get("kernels") for told in found.values()],
        "waits of the step": [told[False].get("waits") for told in found.values()],
    }
    for name, on, figure in (
        ("MiB moved", False, "moved"),
        ("MiB of extra peak", False, "peak"),
        ("the same with checkpointing", True, "peak"),
        *((f"expected ms, {mac}", False, mac) for mac in MACS),
        ("seconds taken here", False, "seconds"),
    ):
        for length in lengths:
            figures = [told[on]["lengths"].get(str(length), {}).get(figure) for told in found.values()]
            rows[f"{name}, L = {length}"] = figures
    lines = [f"| | {' | '.join(WAYS[way] for way in found)} |", f"|{'---|' * (len(found) + 1)}"]
    for name, figures in rows.items():
        if any(figure is not None for figure in figures):
            lines.append(f"| {name} | {' | '.join('' if figure is None else str(figure) for figure in figures)} |")
    return "\n".join(lines)


def measure(way: str, folder: Path, checkpointing: bool, lengths: list[int]) -> dict[str, Any]:
    """Kernels of a layer and of a step, and what each length takes."""
    if way == "mlx":
        return {"lengths": {length: mlx_step(checkpointing, length) for length in lengths}}
    if way != "stock":
        from patcher import patch_for_mac

        patch_for_mac(simulate="M3 Max 36GB")
        import unsloth  # noqa: F401
    else:
        from patcher.simulator import start

        start("M3 Max 36GB")
    model = stock if way == "stock" else with_unsloth
    two = Steps(model(folder, 2, checkpointing))
    first = two.take(lengths[0])
    told = {"kernels": first.dispatches, "waits": first.synchronizations}
    told["lengths"] = {length: two.figures(length) for length in lengths}
    del two
    more = Steps(model(folder, 3, checkpointing)).take(lengths[0])
    both = [more.dispatches - first.dispatches]
    both.append(both[0] - more.by_phase["optimizer"].dispatches + first.by_phase["optimizer"].dispatches)
    return told | {"layer, optimizer": both[0], "layer": both[1]}


class Steps:
    """A model with its optimizer, and its steps on the meter."""

    def __init__(self, model: Any) -> None:
        import torch

        self.model = model
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
        self.taken: set[int] = set()

    def figures(self, length: int) -> dict[str, float]:
        """MiB that a step moves and holds, the expected milliseconds on each Mac, and the seconds it took here."""
        import torch

        from patcher.simulator.estimate import estimate

        held, began = torch.mps.current_allocated_memory(), time.perf_counter()
        usage = self.take(length)
        return {
            "moved": round((usage.bytes_read + usage.bytes_written) / MIB),
            "peak": round((usage.peak_bytes - held) / MIB),
            "seconds": round(time.perf_counter() - began, 1),
            **{mac: round(estimate(usage, mac).step_seconds * 1e3, 1) for mac in MACS},
        }

    def take(self, length: int) -> Any:
        """Usage of a step; one of few tokens comes first, which makes the optimizer's state."""
        from patcher.simulator.meter import Meter

        if not self.taken:
            self._step(64)
        self.taken.add(length)
        with Meter() as meter:
            self._step(length)
        return meter.usage()

    def _step(self, length: int) -> None:
        import torch

        ids = torch.randint(3, WIDTH["vocab_size"], (1, length), generator=torch.Generator().manual_seed(1)).to("mps")
        with torch.autocast("mps", dtype=torch.bfloat16):
            loss = self.model(input_ids=ids, labels=ids).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def with_unsloth(folder: Path, layers: int, checkpointing: bool) -> Any:
    """A model through Unsloth, from a folder that is made first."""
    import torch
    from transformers import AutoModelForCausalLM
    from unsloth import FastLanguageModel

    from patcher.verify import text

    path = folder / str(layers)
    if not path.is_dir():
        AutoModelForCausalLM.from_config(llama(layers), dtype=torch.bfloat16).save_pretrained(path)
        text.tokenizer(["a few words", "and some more"], 300).save_pretrained(path)
    model, _ = FastLanguageModel.from_pretrained(
        str(path), dtype=torch.bfloat16, load_in_4bit=False, max_seq_length=max(LENGTHS)
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=16,
        lora_alpha=16,
        target_modules=list(PROJECTIONS),
        use_gradient_checkpointing="unsloth" if checkpointing else False,
    )
    return model.train()


def stock(_: Path, layers: int, checkpointing: bool) -> Any:
    """A model of transformers and PEFT, as their Trainer sets it up."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(llama(layers), dtype=torch.bfloat16).to("mps")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules=list(PROJECTIONS))).train()


def llama(layers: int) -> Any:
    """The configuration."""
    import torch
    from transformers import LlamaConfig

    torch.manual_seed(0)
    return LlamaConfig(
        **WIDTH,
        num_hidden_layers=layers,
        max_position_embeddings=max(LENGTHS),
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )


def mlx_step(checkpointing: bool, length: int) -> dict[str, float]:
    """MiB that a second step of mlx-lm's trainer holds beyond what it held before, and the seconds it took here."""
    from functools import partial

    import mlx.core as mx
    import mlx.nn as nn
    from mlx.optimizers import AdamW
    from mlx.utils import tree_map
    from mlx_lm.models.llama import Model, ModelArgs
    from mlx_lm.tuner.trainer import default_loss, grad_checkpoint
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model = Model(ModelArgs(model_type="llama", num_hidden_layers=2, head_dim=64, **WIDTH))
    model.update(tree_map(lambda weight: weight.astype(mx.bfloat16), model.parameters()))
    model.freeze()
    keys = [f"{'mlp' if name in PROJECTIONS[4:] else 'self_attn'}.{name}" for name in PROJECTIONS]
    linear_to_lora_layers(model, 2, {"rank": 16, "scale": 1.0, "dropout": 0.0, "keys": keys})
    layer, optimizer = type(model.layers[0]), AdamW(learning_rate=1e-4)
    forward: Callable[..., Any] = layer.__call__
    if checkpointing:
        grad_checkpoint(model.layers[0])
    state = [model.state, optimizer.state, mx.random.state]
    loss_and_gradients = nn.value_and_grad(model, default_loss)

    @partial(mx.compile, inputs=state, outputs=state)
    def step(batch: Any, lengths: Any) -> Any:
        (loss, _), gradients = loss_and_gradients(model, batch, lengths)
        optimizer.update(model, gradients)
        return loss

    model.train()
    batch = mx.random.randint(3, WIDTH["vocab_size"], (1, length + 1))
    mx.eval(state, batch)
    for _ in range(2):
        mx.clear_cache()
        held, began = mx.get_active_memory(), time.perf_counter()
        mx.reset_peak_memory()
        mx.eval(step(batch, mx.array([[0, length + 1]])), state)
    layer.__call__ = forward
    peak = round((mx.get_peak_memory() - held) / MIB)
    return {"peak": peak, "seconds": round(time.perf_counter() - began, 1)}


if __name__ == "__main__":
    main()
