"""The main job, as `make demo` runs it, on the simulated Mac: examples/finetune.py, with half of its steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.process import ROOT, run_python

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"


def run(script: Path, *arguments: str, folder: Path) -> str:
    """The output of a script that was started in ``folder``."""
    return run_python(script, *arguments, cwd=folder, timeout=900, UNSLOTH_SIMULATE_MAC="1").stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the demo ran, and what it printed."""
    folder = tmp_path_factory.mktemp("main-job")
    run(EXAMPLES / "prepare_smollm2.py", "demo", folder=folder)
    source = (EXAMPLES / "finetune.py").read_text()
    assert source.count("max_steps=40") == 1
    script = folder / "finetune.py"
    script.write_text(source.replace("max_steps=40", "max_steps=20"))
    return folder / "demo", run(script, folder=folder)


def test_the_demo_says_what_a_user_wants_to_know(demo: tuple[Path, str]) -> None:
    """The loss falls; the answers before and after differ; peak memory and the files are named."""
    _, output = demo
    found = re.search(r"loss: +([\d.]+) over the first five steps, ([\d.]+) over the last", output)
    assert found is not None, output[-2000:]
    assert float(found[2]) < 0.9 * float(found[1])
    before, after = re.search(r"before: +(.*)\nafter: +(.*)\n", output).groups()  # type: ignore[union-attr]
    assert before and after and before != after
    assert "megabyte" in before
    assert 0.3 < float(re.search(r"peak memory: +([\d.]+) GiB", output)[1]) < 4  # type: ignore[index]


def test_the_adapter_is_pefts_own(demo: tuple[Path, str]) -> None:
    """PEFT loads it on the CPU without patches, and the merged model says the same as base and adapter."""
    folder, output = demo
    tokenizer = AutoTokenizer.from_pretrained(folder / "adapter")
    base = AutoModelForCausalLM.from_pretrained(folder / "SmolLM2-135M-Instruct", dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, folder / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32).eval()
    chat = [{"role": "user", "content": "What is a megabyte?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        expected, found = adapted(**inputs).logits, merged(**inputs).logits
    # The merged weights are rounded to bf16, 2^-9 relative each; 30 layers of it stay within a few percent.
    assert (found - expected).norm() < 0.05 * expected.norm()
    tokens = merged.generate(**inputs, max_new_tokens=4, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    after = re.search(r"after: +(.*)\n", output)[1]  # type: ignore[index]
    assert after.startswith(tokenizer.decode(tokens, skip_special_tokens=True)[:4])
