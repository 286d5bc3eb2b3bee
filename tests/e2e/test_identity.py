"""Who Unsloth, accelerate, transformers and TRL believe to be training on, on the simulated Mac."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.process import ROOT, run_python

pytestmark = pytest.mark.slow

WORKING_SET = 22906503168
"""What Metal recommends on a Mac with 32 GB: two thirds, 21.333 GiB; see docs/memory.md."""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests.e2e.identity found in a fresh process."""
    done = run_python(ROOT / "tests" / "e2e" / "identity.py", cwd=tmp_path_factory.mktemp("identity"), timeout=300)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_unsloth_sees_mps(facts: dict[str, Any]) -> None:
    """Both device_type modules, their functions, and the names that others copied from them."""
    assert facts["unsloth"] == facts["zoo"] == ["mps", "mps", 1]
    assert facts["functions"] == ["mps", "mps"]
    assert facts["copied"] == "mps"
    assert facts["module"] is True
    assert facts["stats"] == ["Apple M2 Pro. ", "simulated Mac, macOS 15.5.", 21.333]


def test_the_switch_that_lets_the_bodies_end_is_gone(facts: dict[str, Any]) -> None:
    """UNSLOTH_ALLOW_CPU switches the patching of TRL's trainers off while it is set."""
    assert facts["allow_cpu"] is None


def test_bfloat16_is_used(facts: dict[str, Any]) -> None:
    """Without a change Unsloth loads every model in fp16."""
    assert facts["bf16"] == [True, True, True]
    assert facts["is_bf16_supported"] is True
    # What upstream needs to look for CUDA's libraries: no name for scripts.
    assert facts["missing"] == ["bnb", "bnb_functional", "cdequantize_blockwise_fp32", "old_is_bf16_supported", "x"]


def test_cuda_queries_answer_for_the_mac(facts: dict[str, Any]) -> None:
    """To the script there is CUDA, whose one GPU is the Mac's."""
    assert facts["cuda available"] is True
    assert facts["cuda answers"] == ["Apple M2 Pro", WORKING_SET, [0, 0], 0, 1]
    assert facts["memory"] == [True, True]


def test_the_other_libraries_choose_mps(facts: dict[str, Any]) -> None:
    assert facts["accelerate"] == facts["transformers"] == facts["trl"] == "mps"


def test_autocast_for_cuda_acts_on_mps(facts: dict[str, Any]) -> None:
    assert facts["autocast"] == ["torch.bfloat16", "torch.bfloat16"]


def test_recomputed_dropout_has_the_mask_of_the_forward(facts: dict[str, Any]) -> None:
    """pytorch issue 194478: without ``torch.mps._initialized`` the random state is not restored."""
    assert facts["dropout"] == 0


def test_torch_compile_works_on_both_devices(facts: dict[str, Any]) -> None:
    """Inductor asks ``torch.cuda`` for the device of its cache key, also for CPU graphs. 2e-6: fp32, values up to 3."""
    assert max(facts["inductor"]) < 2e-6


def test_without_a_compiler_importing_unsloth_says_so(tmp_path: Path) -> None:
    """Unsloth tries its first import of torch and swallows what it raises: the second import says the same."""
    done = run_python(
        "-c",
        "from patcher import patch_for_mac; patch_for_mac(simulate='M1 8GB'); import unsloth",
        cwd=tmp_path,
        timeout=120,
        check=False,
        PATH=str(tmp_path),
        PATCHER_CACHE=str(tmp_path),
    )
    assert done.returncode == 1
    last = done.stderr[done.stderr.rindex("patcher.errors.") :]
    assert last.startswith("patcher.errors.SimulatorUnavailable: the simulated mps device needs a C++ compiler")


def test_generated_code_has_a_folder_of_its_own(facts: dict[str, Any]) -> None:
    assert facts["compiled"].endswith("_mps")


def test_the_pinned_versions_are_reviewed(facts: dict[str, Any]) -> None:
    assert facts["refused"] == []
    assert facts["unreviewed"] == []
