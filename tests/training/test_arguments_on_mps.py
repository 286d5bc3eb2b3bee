"""Training arguments written for CUDA, carried out on the simulated mps device in fresh processes."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.process import run_python


def _on_simulated_mac(script: str, folder: Path) -> Any:
    """What ``script`` leaves in ``result``, run in a fresh process with patch_for_mac() on a simulated M3 Max."""
    before = "from patcher import patch_for_mac\npatch_for_mac(simulate='M3 Max 36GB', strict=False)\n"
    after_it = "\nimport json, pathlib\npathlib.Path('result.json').write_text(json.dumps(result))\n"
    # bitsandbytes compiles its 32-bit optimizers, and there is no Metal compiler on Linux
    run_python("-c", before + textwrap.dedent(script) + after_it, cwd=folder, TORCHDYNAMO_DISABLE="1")
    return json.loads((folder / "result.json").read_text())


_TRAINING = """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    def train(**options):
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
                             num_attention_heads=4, num_key_value_heads=2)
        rows = [[(7 * row + column) % 64 for column in range(12)] for row in range(8)]
        args = TrainingArguments("out", max_steps=4, per_device_train_batch_size=2, learning_rate=1e-2, seed=1,
                                 logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True, **options)
        trainer = Trainer(LlamaForCausalLM(config), args,
                          train_dataset=[{"input_ids": row, "labels": row} for row in rows])
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return {"device": args.device.type, "optim": args.optim.value, "losses": losses,
                "scaler": trainer.accelerator.scaler is not None}

    runs = {
        "cpu": dict(use_cpu=True), "8bit": dict(optim="adamw_8bit"), "bf16": dict(bf16=True), "fp16": dict(fp16=True),
        "fp16 unclipped": dict(fp16=True, max_grad_norm=0), "workers": dict(dataloader_num_workers=2, tf32=True),
        "lion cpu": dict(use_cpu=True, optim="lion_32bit"), "lion": dict(optim="paged_lion_8bit"),
    }
    result = {name: train(**options) for name, options in runs.items()}
"""


@pytest.mark.slow
def test_training_on_the_simulated_device(tmp_path: Path) -> None:
    """A Trainer with CUDA's arguments trains on mps, in fp32 with the CPU's losses, in bf16 and fp16 close to them."""
    runs = _on_simulated_mac(_TRAINING, tmp_path)
    assert {name: run["device"] for name, run in runs.items()} == {
        name: "cpu" if "cpu" in name else "mps" for name in runs
    }
    # the loss is logged with 4 digits; fp32 rounding over 4 steps stays below that
    assert runs["8bit"]["losses"] == pytest.approx(runs["cpu"]["losses"], rel=1e-4)
    assert runs["lion"]["losses"] == pytest.approx(runs["lion cpu"]["losses"], rel=1e-4)
    assert runs["lion"]["losses"] != pytest.approx(runs["cpu"]["losses"], rel=1e-4)
    # half precision has a relative rounding of 2**-9 (bf16) on activations; the loss follows within a few of these
    for name in ("bf16", "fp16", "fp16 unclipped"):
        assert runs[name]["losses"] == pytest.approx(runs["cpu"]["losses"], rel=1e-2), name
    assert {name for name, run in runs.items() if run["scaler"]} == {"fp16", "fp16 unclipped"}


@pytest.mark.slow
def test_configurations_that_unsloth_generates(tmp_path: Path) -> None:
    """Unsloth's own subclasses, whose default is adamw_8bit, reach the hook through TRL's __init__."""
    script = """
        import unsloth, trl
        from patcher.training.arguments import rewrites
        names = ("SFTConfig", "DPOConfig", "KTOConfig", "GRPOConfig", "RLOOConfig", "RewardConfig")
        configs = {name: getattr(trl, name)(output_dir="out") for name in names}
        result = {
            "generated": [hasattr(config, "unsloth_num_chunks") for config in configs.values()],
            "optim": [config.optim.value for config in configs.values()],
            "pinned": [config.dataloader_pin_memory for config in configs.values()],
            "old": [str(rewrite.old) for rewrite in rewrites() if rewrite.field == "optim"],
        }
    """
    found = _on_simulated_mac(script, tmp_path)
    assert found == {
        "generated": [True] * 6,
        "optim": ["adamw_torch_fused"] * 6,
        "pinned": [False] * 6,
        "old": ["adamw_8bit"],
    }
