"""Every guard against a bug of torch's mps backend: right with it, wrong without it, while the bug is switched on."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from patcher.changes import catalogue
from patcher.engine.model import Kernel
from patcher.engine.targets import load
from patcher.ops.split_sum import split_sum
from patcher.simulator.faults import FAULTS
from tests.machines import M3_MAX

ROOT = Path(__file__).parents[3]
CHANGES = {change.key: change for change in catalogue()}
WRAPPED = {key: change for key, change in CHANGES.items() if isinstance(change, Kernel) and change.wraps}

SHOWN = (
    ("matmul-long-sum", "aten::mm on MPS"),
    ("matmul-long-sum", "aten::mm.out on MPS"),
    ("matmul-long-sum", "aten::addmm on MPS"),
    ("matmul-long-sum", "aten::addmm_ on MPS"),
    ("matmul-long-sum", "aten::addmm.out on MPS"),
    ("matmul-long-sum", "aten::bmm on MPS"),
    ("matmul-long-sum", "aten::bmm.out on MPS"),
    ("matmul-long-sum", "aten::baddbmm on MPS"),
    ("matmul-long-sum", "aten::baddbmm_ on MPS"),
    ("matmul-long-sum", "aten::baddbmm.out on MPS"),
    ("matmul-long-sum", "aten::addbmm on MPS"),
    ("matmul-long-sum", "aten::addbmm_ on MPS"),
    ("matmul-long-sum", "aten::addbmm.out on MPS"),
    ("matmul-long-sum", "aten::linear on MPS"),
    ("matmul-long-sum", "aten::linear_backward on MPS"),
    ("bmm-large-output", "aten::bmm on MPS"),
    ("bmm-large-output", "aten::bmm.out on MPS"),
    ("baddbmm-beta-zero", "aten::baddbmm on MPS"),
    ("baddbmm-beta-zero", "aten::baddbmm_ on MPS"),
    ("linear-many-rows", "aten::linear on MPS"),
    ("linear-dropped-bias", "aten::linear on MPS"),
    ("linear-half-batched", "aten::linear on MPS"),
    ("linear-transposed-bf16", "aten::linear on MPS"),
    ("conv-many-rows", "aten::convolution_backward on MPS"),
    ("late-copy", "torch:Tensor.to"),
    ("late-copy", "torch:Tensor.copy_"),
    ("late-copy", "torch:Tensor.cuda"),
    ("checkpoint-rng", "torch.mps:_initialized"),
    ("checkpoint-rng", "torch.mps:device"),
    ("cuda-autocast", "torch.amp.autocast_mode:autocast.__init__"),
)
"""Fault and guard, for each of which ``guards.py`` has plain torch that needs it."""

POOLING = {
    f"aten::{name} on MPS"
    for name in (
        *("_adaptive_avg_pool2d", "_adaptive_avg_pool2d_backward"),
        *("adaptive_max_pool2d", "adaptive_max_pool2d_backward"),
    )
}
"""Wrapped against refusals and shown in test_pooling.py."""
ELSEWHERE = {("compiled-sum-race", "torch._inductor.codegen.mps:MetalKernel.store")}
"""Shown in test_torch_inductor_mps.py, by the checker of Metal code."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[bool]]]:
    """What ``guards.py`` found in a process of its own."""
    file = tmp_path_factory.mktemp("guards") / "outcomes.json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.changes.torch.guards", str(file)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, dict[str, list[bool]]] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize(("fault", "guard"), SHOWN)
def test_a_guard_is_what_makes_it_right(fault: str, guard: str, outcomes: dict[str, dict[str, list[bool]]]) -> None:
    """With every change each result is that of fp64 on the CPU; with this one left out none is."""
    found = outcomes[f"{fault}, {guard}"]
    assert found["with"] and all(found["with"])
    assert not any(found["without"]) and len(found["without"]) == len(found["with"])


def test_every_fault_has_a_guard_or_a_reason_and_every_guard_a_test(outcomes: dict[str, object]) -> None:
    """The table of faults names changes that exist; each of them, and each wrapped kernel, is left out once above."""
    answered = {(fault.name, fault.guard) for fault in FAULTS.values() if fault.guard is not None}
    assert {guard for _, guard in answered} <= CHANGES.keys()
    assert answered <= {*SHOWN, *ELSEWHERE}
    assert outcomes.keys() == {f"{fault}, {guard}" for fault, guard in SHOWN}
    assert WRAPPED.keys() <= {guard for _, guard in SHOWN} | POOLING
    assert all(fault.reason for fault in FAULTS.values())


@pytest.mark.parametrize("kernel", WRAPPED.values(), ids=WRAPPED.keys())
def test_a_wrapped_kernel_takes_what_its_operator_takes(kernel: Kernel) -> None:
    """The dispatch keys, then the arguments of the installed torch's schema, by the same names, out by keyword only."""
    keys, *found = inspect.signature(load(kernel.replacement)).parameters.values()
    schema = torch._C._get_schema(*kernel.op.partition(".")[::2])
    assert keys.name == "keys"
    assert [(p.name, p.kind is p.KEYWORD_ONLY) for p in found] == [(a.name, a.kwarg_only) for a in schema.arguments]
    assert [p.default is p.empty for p in found] == [not a.has_default_value() for a in schema.arguments]


CASES = {
    "an M3 with torch 2.13": (M3_MAX, {"linear", "bmm", "convolution"}),
    "an M3 with torch 2.14": (replace(M3_MAX, torch="2.14.0"), {"bmm", "convolution"}),
    "an M5 with torch 2.14 and macOS 27": (
        replace(M3_MAX, chip="Apple M5", torch="2.14.0", macos=(27, 0)),
        {"linear", "bmm", "convolution"},
    ),
    "an M1 with torch 2.13": (
        replace(M3_MAX, chip="Apple M1"),
        {"linear", "linear_backward", "mm", "bmm", "convolution"},
    ),
    "an M2 with torch 2.14": (
        replace(M3_MAX, chip="Apple M2 Ultra", torch="2.14.0"),
        {"linear", "mm", "bmm", "convolution"},
    ),
    "an unknown chip": (
        replace(M3_MAX, chip="arm64", torch=None),
        {"linear", "linear_backward", "mm", "bmm", "convolution"},
    ),
}
KERNELS = {
    "linear": {"aten::linear"},
    "linear_backward": {"aten::linear_backward"},
    "mm": {
        *("aten::mm", "aten::mm.out", "aten::addmm", "aten::addmm_", "aten::addmm.out"),
        *("aten::addbmm", "aten::addbmm_", "aten::addbmm.out"),
    },
    "bmm": {"aten::bmm", "aten::bmm.out", "aten::baddbmm", "aten::baddbmm_", "aten::baddbmm.out"},
    "convolution": {"aten::convolution_backward"},
}


@pytest.mark.parametrize(("machine", "groups"), CASES.values(), ids=CASES.keys())
def test_only_machines_that_are_hit_pay_for_a_guard(machine: object, groups: set[str]) -> None:
    """Chips from M3 on add long sums up rightly, torch 2.14 flattens and computes gradients by mm; unknown is hit."""
    in_place = {key for key, change in WRAPPED.items() if change.skip is None or change.skip(machine) is None}  # type: ignore[arg-type]
    assert in_place == {f"{op} on MPS" for group in groups for op in KERNELS[group]} | POOLING


@pytest.mark.parametrize("terms", [32767, 65533, 100_000])
def test_a_sum_is_cut_into_parts_that_are_short_enough(terms: int) -> None:
    """No part has more than 32766 terms, they are about equal, and together they are the sum."""
    lengths = []

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        lengths.append(a.size(-1))
        return a @ b

    ones = torch.ones(2, terms, dtype=torch.bfloat16)
    total = split_sum(product, ones, ones.t())
    assert sum(lengths) == terms and max(lengths) <= 32766 and max(lengths) - min(lengths) <= len(lengths)
    assert total.dtype == torch.float32
    # bf16 rounds each of the parts to 8 bits.
    assert (total - terms).abs().max() <= terms * torch.finfo(torch.bfloat16).eps


@pytest.mark.slow
def test_a_model_trains_as_on_the_cpu_with_every_fault_on(tmp_path: Path) -> None:
    """Loss and gradients of a Llama with 32768 tokens of vocabulary; without the patches both are far off."""
    file = tmp_path / "outcomes.json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.changes.torch.guarded_training", str(file)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(file.read_text())
    # fp32: other orders of summation, through some ten layers of sums.
    assert found["guarded"] == pytest.approx(found["cpu"], rel=1e-4)
    assert found["bare"][0] != pytest.approx(found["cpu"][0], rel=1e-3)  # another batch
    assert max(bare / right for bare, right in zip(found["bare"], found["cpu"], strict=True)) > 1e3  # dlogits @ lm_head
