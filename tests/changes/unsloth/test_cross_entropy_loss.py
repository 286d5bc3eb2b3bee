"""The language-model loss of Unsloth, patched, against its own Triton kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.oracle import INTERPRETED, PATCHED
from tests.parity import assert_parity

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def _both(case: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    found, expected = (oracle.call(f"cross_entropy_loss:{case}", *args, **kwargs) for oracle in (PATCHED, INTERPRETED))
    return found, expected


def _inputs(dtype: torch.dtype, vocabulary: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = (4 * torch.randn(*shape, vocabulary, generator=generator)).to(dtype)
    labels = torch.randint(0, vocabulary, shape, generator=generator)
    labels[..., 1] = -100
    return logits, labels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"logit_softcapping": 30.0},
        {"logit_scaling": 0.0625},
        {"logit_softcapping": 20.0, "logit_scaling": 2.0},
        {"n_items": 7},
        {"n_items": torch.tensor(5)},
        {"n_items": 0},
    ],
)
def test_parity_of_the_loss(dtype: torch.dtype, options: dict[str, Any]) -> None:
    """Loss, gradient and untouched logits, with soft-capping, scaling and every form of n_items.

    exp amplifies the error of an exponent near 20 to 20 half eps; the gradient's scale is its largest element.
    """
    logits, labels = _inputs(dtype, 1003, 2, 6)
    found, expected = _both("loss", logits, labels, dloss=1.5, **options)
    assert_parity(found["loss"], expected["loss"])
    assert_parity(found["dlogits"], expected["dlogits"], noise=16)
    assert torch.equal(found["logits"], logits), "other losses may need the logits"


@pytest.mark.parametrize("options", [{}, {"logit_softcapping": 30.0, "logit_scaling": 0.5}])
def test_parity_above_65536_words(options: dict[str, float]) -> None:
    """A vocabulary that upstream splits into chunks, each with its own kernel."""
    logits, labels = _inputs(torch.bfloat16, 70001, 1, 3)
    found, expected = _both("loss", logits, labels, **options)
    assert_parity(found["loss"], expected["loss"])
    assert_parity(found["dlogits"], expected["dlogits"], noise=16)


def test_no_labels_give_no_loss_and_no_gradient() -> None:
    """A batch whose rows are all prompt: 0, not 0 / 0."""
    logits, labels = _inputs(torch.float32, 50, 1, 4)
    found, _ = _both("loss", logits, torch.full_like(labels, -100))
    assert found["loss"] == 0 and found["dlogits"].eq(0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_keep_their_losses_and_a_second_backward_its_gradient(dtype: torch.dtype) -> None:
    """The Function itself: fp32 losses per row, an expanded gradient, strided logits, and two backward passes."""
    logits, labels = _inputs(dtype, 2 * 77, 5)
    logits, labels = logits[:, ::2], labels.clamp(max=76).to(torch.int32)
    found, expected = _both("rows", logits, labels, torch.ones(()).expand(5), 0, 0, backwards=2)
    assert found["losses"].dtype == torch.float32
    assert_parity(found["losses"], expected["losses"])
    assert torch.equal(found["gradients"][0], found["gradients"][1])
    assert_parity(found["gradients"][0], expected["gradients"][0], noise=16)


@pytest.mark.parametrize("half", ["forward", "backward"])
@pytest.mark.parametrize("softcap", [0.0, 30.0])
def test_each_half_fits_upstreams_other_half(half: str, softcap: float) -> None:
    """So that either is left out alone."""
    logits, labels = _inputs(torch.bfloat16, 1003, 6)
    arguments = (logits, labels, torch.linspace(0.5, 2, 6), softcap, 0.5)
    expected = INTERPRETED.call("cross_entropy_loss:rows", *arguments)
    found = INTERPRETED.call("cross_entropy_loss:with_one_half_replaced", half, *arguments)
    assert_parity(found["losses"], expected["losses"])
    assert_parity(found["gradients"][0], expected["gradients"][0], noise=16)
