"""Every guard against a bug of torch's mps backend: right with it, wrong without it, while the bug is switched on."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patcher.changes import catalogue
from patcher.engine.model import Kernel
from patcher.engine.targets import load
from patcher.simulator.faults import FAULTS
from tests.machines import M3_MAX
from tests.process import run_python

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
    ("gapped-copy", "torch:Tensor.copy_"),
    ("checkpoint-rng", "torch.mps:_initialized"),
    ("checkpoint-rng", "torch.mps:device"),
    ("cuda-autocast", "torch.amp.autocast_mode:autocast.__init__"),
    ("attention-dropout", "aten::_scaled_dot_product_attention_math_for_mps on MPS"),
    ("exponential-zero", "aten::exponential_ on MPS"),
    ("embedding-large-table", "aten::index_select on MPS"),
    ("index-beyond-table", "aten::index_select on MPS"),
    ("index-beyond-table", "aten::nll_loss_forward on MPS"),
    ("index-beyond-table", "aten::nll_loss2d_forward on MPS"),
    ("index-write-beyond", "aten::index_copy_ on MPS"),
    ("index-write-beyond", "aten::index_fill_.int_Scalar on MPS"),
    ("index-write-beyond", "aten::index_fill_.int_Tensor on MPS"),
    ("embedding-bag-edge", "aten::_embedding_bag on MPS"),
    ("embedding-bag-edge", "aten::_embedding_bag_forward_only on MPS"),
    ("cat-large-output", "aten::cat on MPS"),
    ("cat-large-output", "aten::cat.out on MPS"),
    ("product-stride-zero", "aten::mm on MPS"),
    ("product-stride-zero", "aten::bmm on MPS"),
    ("product-stride-zero", "aten::addmm on MPS"),
    ("product-stride-zero", "aten::linear on MPS"),
    ("product-stride-zero", "aten::linear_backward on MPS"),
    ("unique-large-integers", "aten::_unique2 on MPS"),
    ("sort-many-columns", "aten::sort.stable on MPS"),
    ("batch-norm-strided", "aten::native_batch_norm on MPS"),
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
MEMORY = {"aten::scaled_dot_product_attention on AutogradMPS"}
"""Wrapped against memory and shown in test_attention.py."""
ELSEWHERE = {("compiled-sum-race", "torch._inductor.codegen.mps:MetalKernel.store")}
"""Shown in test_torch_inductor_mps.py, by the checker of Metal code."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What ``guards.py`` found in a process of its own."""
    file = tmp_path_factory.mktemp("guards") / "outcomes.json"
    run_python("-W", "ignore", "-m", "tests.changes.torch.guards", file, timeout=300)
    read: dict[str, dict[str, Any]] = json.loads(file.read_text())
    return read


@pytest.fixture(scope="module")
def outcomes(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[bool]]]:
    """For each fault and guard, what was right with the guard and without it."""
    return found["guards"]


@pytest.mark.parametrize(("fault", "guard"), SHOWN)
def test_a_guard_is_what_makes_it_right(fault: str, guard: str, outcomes: dict[str, dict[str, list[bool]]]) -> None:
    """With every change each result is that of fp64 on the CPU; with this one left out none is."""
    right = outcomes[f"{fault}, {guard}"]
    assert right["with"] and all(right["with"])
    assert not any(right["without"]) and len(right["without"]) == len(right["with"])


def test_guards_cost_no_kernel_and_no_wait(found: dict[str, dict[str, Any]]) -> None:
    """A step of training and a token of generation, in which there is nothing to mend; sampling is another matter."""
    assert found["cost"]["guarded"] == found["cost"]["bare"]
    assert found["cost"]["bare"][0] >= 20


def test_every_fault_has_a_guard_or_a_reason_and_every_guard_a_test(outcomes: dict[str, object]) -> None:
    """The table of faults names changes that exist; each of them, and each wrapped kernel, is left out once above."""
    answered = {(fault.name, fault.guard) for fault in FAULTS.values() if fault.guard is not None}
    assert {guard for _, guard in answered} <= CHANGES.keys()
    assert answered <= {*SHOWN, *ELSEWHERE}
    assert outcomes.keys() == {f"{fault}, {guard}" for fault, guard in SHOWN}
    assert WRAPPED.keys() <= {guard for _, guard in SHOWN} | POOLING | MEMORY
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
    "an M3 with torch 2.13": (M3_MAX, {"linear", "bmm", "sampling"}),
    "an M3 with torch 2.14": (replace(M3_MAX, torch="2.14.0"), {"bmm"}),
    "an M5 with torch 2.14 and macOS 27": (
        replace(M3_MAX, chip="Apple M5", torch="2.14.0", macos=(27, 0)),
        {"linear", "mm", "bmm"},
    ),
    "an M5 with torch 2.13 and macOS 27": (
        replace(M3_MAX, chip="Apple M5", macos=(27, 0)),
        {"linear", "linear_backward", "mm", "bmm", "sampling"},
    ),
    "an M3 with torch 2.11": (
        replace(M3_MAX, torch="2.11.0"),
        {"linear", "linear_backward", "mm", "bmm", "sampling"},
    ),
    "an M1 with torch 2.13": (
        replace(M3_MAX, chip="Apple M1"),
        {"linear", "linear_backward", "mm", "bmm", "sampling"},
    ),
    "an M2 with torch 2.14": (
        replace(M3_MAX, chip="Apple M2 Ultra", torch="2.14.0"),
        {"linear", "mm", "bmm"},
    ),
    "an unknown chip": (
        replace(M3_MAX, chip="arm64", torch=None),
        {"linear", "linear_backward", "mm", "bmm", "sampling"},
    ),
}
EVERYWHERE = {
    f"aten::{name} on MPS"
    for name in (
        *("convolution_backward", "_scaled_dot_product_attention_math_for_mps", "index_select", "nll_loss_forward"),
        *("nll_loss2d_forward", "index_copy_", "index_fill_.int_Scalar", "index_fill_.int_Tensor", "_embedding_bag"),
        *("_embedding_bag_forward_only", "cat", "cat.out", "sort.stable", "_unique2", "native_batch_norm"),
    )
}
KERNELS = {
    "sampling": {"aten::exponential_"},
    "linear": {"aten::linear"},
    "linear_backward": {"aten::linear_backward"},
    "mm": {
        *("aten::mm", "aten::mm.out", "aten::addmm", "aten::addmm_", "aten::addmm.out"),
        *("aten::addbmm", "aten::addbmm_", "aten::addbmm.out"),
    },
    "bmm": {"aten::bmm", "aten::bmm.out", "aten::baddbmm", "aten::baddbmm_", "aten::baddbmm.out"},
}


@pytest.mark.parametrize(("machine", "groups"), CASES.values(), ids=CASES.keys())
def test_only_machines_that_are_hit_pay_for_a_guard(machine: object, groups: set[str]) -> None:
    """Chips from M3 on add long sums up rightly, torch 2.14 flattens and computes gradients by mm; unknown is hit. On
    macOS 27 products of repeated rows are wrong on every chip."""
    in_place = {key for key, change in WRAPPED.items() if change.skip is None or change.skip(machine) is None}  # type: ignore[arg-type]
    assert in_place == {f"{op} on MPS" for group in groups for op in KERNELS[group]} | POOLING | MEMORY | EVERYWHERE


@pytest.mark.slow
def test_a_model_trains_as_on_the_cpu_with_every_fault_on(tmp_path: Path) -> None:
    """Loss and gradients of a Llama with 32768 tokens of vocabulary; without the patches both are far off."""
    file = tmp_path / "outcomes.json"
    run_python("-W", "ignore", "-m", "tests.changes.torch.guarded_training", file, timeout=300)
    found = json.loads(file.read_text())
    # fp32: other orders of summation, through some ten layers of sums.
    assert found["guarded"] == pytest.approx(found["cpu"], rel=1e-4)
    assert found["bare"][0] != pytest.approx(found["cpu"][0], rel=1e-3)  # another batch
    assert max(bare / right for bare, right in zip(found["bare"], found["cpu"], strict=True)) > 1e3  # dlogits @ lm_head
