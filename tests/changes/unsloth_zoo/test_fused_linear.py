"""unsloth_zoo's losses of a language-model head against its own bodies; against float64 the ops are in tests/ops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracle import INTERPRETED, PATCHED
from tests.parity import EPS

pytestmark = pytest.mark.slow

ROWS, LENGTH, WIDTH, VOCABULARY = 2, 9, 16, 150
ORACLES = (PATCHED, INTERPRETED)

OPTIONS: dict[str, dict[str, Any]] = {
    "mean": {},
    "items": {"n_items": torch.tensor(21)},
    "items of two devices": {"n_items": torch.tensor([7, 7])},
    "no items": {"n_items": 0},
    "scaled": {"scaling": 1024.0, "n_items": 11},
    "softcap": {"logit_softcapping": 5.0},
    "scales": {"logit_scale_multiply": 0.5, "logit_scale_divide": 2.0},
    "smoothing": {"label_smoothing": 0.1},
    "smoothed softcap": {"label_smoothing": 0.2, "logit_softcapping": 5.0},
    "not shifted": {"shift_labels": False},
    "another ignore_index": {"ignore_index": 3},
}


def operands(dtype: torch.dtype, *, bias: bool = True, mask: bool = False) -> tuple[list[Any], dict[str, Any]]:
    """Hidden states, weight, bias and labels, every third of which is -100; and an attention mask."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(ROWS, LENGTH, WIDTH, generator=generator).to(dtype)
    weight = (torch.randn(VOCABULARY, WIDTH, generator=generator) / 2).to(dtype)
    biases = torch.randn(VOCABULARY, generator=generator).to(dtype) if bias else None
    labels = torch.randint(0, VOCABULARY, (ROWS, LENGTH), generator=generator)
    labels[:, ::3] = -100
    kept = torch.ones(ROWS, LENGTH, dtype=torch.int64)
    kept[0, :4] = 0
    return [hidden, weight, biases, labels], {"mask": kept} if mask else {}


def agree(found: Any, expected: Any, dtype: torch.dtype) -> None:
    """64 units of the largest value in fp32; 8 in bf16, where logits, gradients of tiles and results are rounded."""
    if isinstance(expected, dict):
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            agree(ours, theirs, dtype)
        return
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if expected.dtype == torch.bool:
        assert torch.equal(found, expected)
        return
    units = 64 if dtype == torch.float32 else 8
    bound = units * EPS[dtype] * max(1e-3, expected.abs().max().item())
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=bound)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_loss_is_upstreams(options: dict[str, Any], trained: bool) -> None:
    """Shifted labels, masks, numbers of items, scaling and every change of the logits, with a bias."""
    given, masks = operands(torch.float32, mask="shift_labels" not in options)
    given[3] = given[3].masked_fill(given[3] == -100, options.get("ignore_index", -100))
    found, expected = (oracle.call("fused_linear:loss", *given, trained, **masks, **options) for oracle in ORACLES)
    agree(found, expected, torch.float32)


@pytest.mark.parametrize("trained", [False, True])
def test_the_loss_in_bf16_is_upstreams(trained: bool) -> None:
    """Gradients too, in bf16."""
    given, masks = operands(torch.bfloat16, bias=False, mask=True)
    found, expected = (oracle.call("fused_linear:loss", *given, trained, **masks) for oracle in ORACLES)
    agree(found, expected, torch.bfloat16)


EVERYTHING = dict.fromkeys(("return_entropy", "return_mean_logits", "return_log_sum_sq_probs", "return_is_top1"), True)
OF_LOG_PROBS: dict[str, dict[str, Any]] = {
    "alone": {},
    "all": {"temperature": 0.7, "logit_softcapping": 5.0, **EVERYTHING},
    "entropy to log": {"return_entropy": True, "entropy_requires_grad": False, "temperature": 0.9},
    "entropy if asked": {"return_entropy": True, "entropy_requires_grad": None},
    "mean": {"return_mean_logits": True, "logit_scale_multiply": 0.5, "temperature": 2.0},
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("options", OF_LOG_PROBS.values(), ids=OF_LOG_PROBS)
def test_log_probabilities_are_upstreams(options: dict[str, Any], trained: bool, masked: bool) -> None:
    """And entropy, mean logits, sums of squares, the likeliest token, and the gradients of the first two."""
    given, masks = operands(torch.float32, mask=masked)
    given[3] = given[3].clamp_min(0)
    grads = [row_values(1), row_values(2)]
    found, expected = (
        oracle.call("fused_linear:log_probs", *given, trained, grads, **masks, **options) for oracle in ORACLES
    )
    agree(found, expected, torch.float32)


BODIES = (
    ("_ce_impl", "loss"), ("_logprobs_impl", "log_probs"), ("_logprobs_bwd_impl", "log_probs")
)  # fmt: skip


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(("name", "case"), BODIES, ids=[name for name, _ in BODIES])
def test_each_body_stands_beside_upstreams_others(name: str, case: str, trained: bool) -> None:
    """A change that is left out leaves the others right."""
    given, masks = operands(torch.float32, mask=True)
    arguments: list[Any] = [*given, trained]
    options: dict[str, Any] = dict(masks)
    if case == "log_probs":
        given[3] = given[3].clamp_min(0)
        arguments = [*given, trained, [row_values(1), row_values(2)]]
        options["return_entropy"] = True
    found = INTERPRETED.call("fused_linear:with_one_body_replaced", name, case, *arguments, **options)
    agree(found, INTERPRETED.call(f"fused_linear:{case}", *arguments, **options), torch.float32)


def test_float64_is_left_to_upstream() -> None:
    """To the last bit, on the CPU, which has it."""
    given, masks = operands(torch.float64, mask=True)
    found, expected = (oracle.call("fused_linear:loss", *given, True, **masks) for oracle in ORACLES)
    assert torch.equal(found["loss"], expected["loss"])
    assert all(map(torch.equal, found["gradients"], expected["gradients"]))


def test_a_label_outside_the_vocabulary_is_an_error_there_too() -> None:
    """With the words of this project."""
    given, _ = operands(torch.float32)
    given[3][1, 4] = VOCABULARY
    with pytest.raises(Exception, match=rf"(?s)IndexBeyondTable.*{VOCABULARY}, and 0 more"):
        PATCHED.call("fused_linear:loss", *given, False)


def row_values(seed: int) -> Tensor:
    return torch.randn(ROWS, LENGTH, generator=torch.Generator().manual_seed(seed))
