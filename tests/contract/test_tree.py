"""The tests stand where what they test stands."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.process import ROOT

CHANGES = ROOT / "patcher" / "changes"

LIBRARIES = sorted(path.name for path in CHANGES.iterdir() if (path / "__init__.py").exists())
OURS = ("ops", "ops/metal", "ops/variants", "engine", "macs", "training")
MIRRORED = (*OURS, *(f"changes/{name}" for name in LIBRARIES))

ELSEWHERE = {
    "changes/accelerate/accelerator": "e2e/test_broken_runs.py: a loss that is no number, in a training",
    "changes/accelerate/several_devices": "e2e/test_refusals.py: what is refused, by plugin, variable and name",
    "changes/bitsandbytes/autocast": "e2e/test_autocast.py: every operator of bitsandbytes, in one process",
    "changes/bitsandbytes/optim": "e2e/test_4bit.py: paged optimizers train",
    "changes/bitsandbytes/shim": "contract/test_bitsandbytes_shim.py: with the other shim",
    "changes/flash_attn/shim": "contract/test_flash_attn_shim.py: with the other shims",
    "changes/torch/autocast_state": "idioms/test_idioms.py: as scripts write it, in one process with the others",
    "changes/torch/compiled": "changes/torch/test_torchlike.py: with the other code that torch.compile traces",
    "changes/torch/concatenation": "changes/torch/test_guards.py: each guard with its fault, in one process",
    "changes/torch/convolution": "changes/torch/test_guards.py: each guard with its fault, in one process",
    "changes/torch/cuda_graphs": "idioms/test_idioms.py: as scripts write it, in one process with the others",
    "changes/torch/cuda_memory": "changes/torch/test_cuda_queries.py: every name of torch.cuda, in one process",
    "changes/torch/cuda_streams": "idioms/test_idioms.py: as scripts write it, in one process with the others",
    "changes/torch/cuda_tools": "idioms/test_idioms.py: as scripts write it, in one process with the others",
    "changes/torch/data_parallel": "idioms/test_idioms.py: as scripts write it, in one process with the others",
    "changes/torch/device_types": "changes/torch/test_devices.py: every way to name a device, in one process",
    "changes/torch/factories": "changes/torch/test_devices.py: every way to name a device, in one process",
    "changes/torch/indexing": "changes/torch/test_guards.py: each guard with its fault, in one process",
    "changes/torch/jit": "changes/torch/test_cuda_device.py: compiled code calls what is replaced",
    "changes/torch/linear": "changes/torch/test_guards.py: each guard with its fault, in one process",
    "changes/torch/matmul": "changes/torch/test_guards.py: each guard with its fault, in one process",
    "changes/torch/normalization": "changes/torch/test_guards.py: each guard with its fault, in one process",
    "changes/torch/optimizers": "idioms/test_idioms.py: as scripts write it, in one process with the others",
    "changes/torch/out_of_memory": "e2e/test_out_of_memory.py: a device that runs out of memory",
    "changes/torch/sampling": "changes/torch/test_guards.py: each guard with its fault, in one process",
    "changes/torch/sorting": "changes/torch/test_guards.py: each guard with its fault, in one process",
    "changes/torch/storage": "changes/torch/test_devices.py: every way to name a device, in one process",
    "changes/torch/tensor_types": "changes/torch/test_devices.py: every way to name a device, in one process",
    "changes/transformers/attention_names": "e2e/test_refusals.py: what is refused, by plugin, variable and name",
    "changes/transformers/trainer": "training/test_arguments.py: arguments that are changed after their creation",
    "changes/transformers/trainer_batches": "e2e/test_odd_rows.py: rows without tokens, in trainings",
    "changes/transformers/trainer_utils": "checkpoints/test_storage.py: which checkpoint is the last",
    "changes/transformers/training_args": "training/test_arguments.py: every configuration of TRL",
    "changes/triton/shim": "contract/test_triton_shim.py: with the other shim",
    "changes/trl/import_utils": "versions/test_versions.py: needs a TRL of before 1.0",
    "changes/trl/async_trainers": "e2e/test_distillation.py: the trainers that are refused",
    "changes/unsloth/device_type": "e2e/test_identity.py: needs the real Unsloth, imported",
    "changes/unsloth/models_llama": "versions/test_versions.py: needs a release of before August 2026",
    "changes/unsloth/models_vision": "versions/test_versions.py: needs a release of before August 2026",
    "changes/unsloth/models_utils": "e2e/test_identity.py: needs the real Unsloth, imported",
    "changes/unsloth/utils": "changes/unsloth/test_lora.py: the kernels behind Unsloth's LoRA",
    "changes/unsloth_zoo/device_type": "e2e/test_identity.py: needs the real Unsloth, imported",
    "changes/unsloth_zoo/fused_losses": "e2e/test_parity.py: a training step of Unsloth's, beside the CPU's",
    "changes/unsloth_zoo/gradient_checkpointing": "e2e/test_parity.py: a training step of Unsloth's, beside the CPU's",
    "changes/unsloth_zoo/llama_cpp": "gguf/test_install.py: with the packages that it takes",
}
"""What has no file of tests of its own: the file that tests it, and how or why there."""


def _modules(folder: str) -> set[str]:
    return {path.stem for path in (ROOT / "patcher" / folder).glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("folder", MIRRORED)
def test_each_file_has_its_file_of_tests(folder: str) -> None:
    """``patcher/ops/rope.py`` is tested by ``tests/ops/test_rope.py``; what is tested elsewhere says where."""
    for module in sorted(_modules(folder)):
        tests = ROOT / "tests" / folder / f"test_{module}.py"
        if (elsewhere := ELSEWHERE.get(f"{folder}/{module}")) is not None:
            assert not tests.exists(), f"{tests.name} is there: take {folder}/{module} out of ELSEWHERE"
            tests = ROOT / "tests" / elsewhere.partition(":")[0]
        assert tests.exists(), f"patcher/{folder}/{module}.py has no {tests.relative_to(ROOT)}"
        text = tests.read_text()
        assert "def test_" in text, f"{tests.name} has no test"
        if not folder.startswith("changes/"):
            place = f"patcher.{folder.replace('/', '.')}"
            named = (f"{place}.{module} ", f"{place} import", f"{place}.{module},")
            assert any(name in text for name in named), f"{tests.name} does not import {module}"


def test_what_is_tested_elsewhere_exists() -> None:
    """No line is left of a file that is gone."""
    assert {name for name in ELSEWHERE if not (ROOT / "patcher" / f"{name}.py").exists()} == set()


def _starts_python(path: Path) -> bool:
    """Whether the file itself, not a script in one of its strings, calls ``subprocess.run([sys.executable, ...])``."""
    return any(
        isinstance(node, ast.Call)
        and ast.unparse(node.func) == "subprocess.run"
        and "sys.executable" in ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_processes_are_started_in_one_place() -> None:
    """Tests run Python through tests/process.py; what is talked to while it runs is a ``Popen``."""
    starters = [path for path in sorted((ROOT / "tests").rglob("*.py")) if _starts_python(path)]
    assert [str(path.relative_to(ROOT)) for path in starters] == ["tests/process.py"]
