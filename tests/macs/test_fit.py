"""Whether a model fits into the memory that torch may take, and what would."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from patcher.errors import InvalidSwitch, ModelDoesNotFit
from patcher.macs import fit
from tests.machines import M3_MAX

GIB = 2**30
EIGHT_BILLION = fit.Need(weights=16 * GIB, parameters=8_000_000_000, dtype="bfloat16", nf4=5 * GIB)


@pytest.mark.parametrize(("over", "refused"), [(0, False), (1, True)])
def test_one_byte_decides(over: int, refused: bool) -> None:
    """Weights of exactly what the limit leaves are let through; one byte more is refused, and the text says why."""
    limit = fit.Limit(ratio=0.5, recommended=20 * GIB, taken=2 * GIB)
    need = fit.Need(weights=8 * GIB + over, parameters=4 * GIB, dtype="bfloat16", nf4=3 * GIB)
    if not refused:
        return fit.check("m", need, limit, M3_MAX)
    with pytest.raises(ModelDoesNotFit) as raised:
        fit.check("m", need, limit, M3_MAX)
    for text in ("8.00 GiB", "0.5 times the 20.00 GiB", "2.00 GiB of it", "load_in_4bit=True", "3.00 GiB", str(M3_MAX)):
        assert text in str(raised.value), text
    return None


@pytest.mark.parametrize(
    ("ratio", "free", "text"),
    [
        (1.2, 6.4, "pass load_in_4bit=True, with which they take 5.00 GiB; or take a model with at most 3.2 billion"),
        (0.9, 4.8, "take a smaller model: even with load_in_4bit=True this one takes 5.00 GiB; or use a Mac with"),
    ],
)
def test_what_would_fit_fits(ratio: float, free: float, text: str) -> None:
    """8 billion parameters on 8 GB: in 4 bit where that fits, a smaller model, and the smallest Mac that holds them."""
    limit = fit.Limit(ratio=ratio, recommended=int(free / ratio * GIB), taken=0)
    with pytest.raises(ModelDoesNotFit) as raised:
        fit.check("m", EIGHT_BILLION, limit, M3_MAX)
    assert text in str(raised.value)
    # Two thirds of 16 and of 24 GB are 10.67 and 16 GiB: at 1.2 the latter holds 16 GiB, at 0.9 only 32 GB do.
    assert f"at least {24 if ratio == 1.2 else 32} GB" in str(raised.value)


def test_no_limit_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio of 0 is no limit; PATCHER_CHECK_FIT=0 lets torch decide; another text than yes or no is an error."""
    fit.check("m", EIGHT_BILLION, fit.Limit(0, GIB, 0), M3_MAX)
    monkeypatch.setenv("PATCHER_CHECK_FIT", "0")
    fit.check("m", EIGHT_BILLION, fit.Limit(1, GIB, 0), M3_MAX)
    monkeypatch.setenv("PATCHER_CHECK_FIT", "maybe")
    with pytest.raises(InvalidSwitch):
        fit.check("m", EIGHT_BILLION, fit.Limit(1, GIB, 0), M3_MAX)


def test_sizes_are_of_the_tensors_that_will_be_there() -> None:
    """Tied weights once, other devices not, what 4 bit would take from the linear weights alone."""
    model = torch.nn.ModuleDict({"head": torch.nn.Linear(64, 8), "body": torch.nn.Linear(64, 64, bias=False)}).half()
    model.all_tied_weights_keys = {}  # type: ignore[assignment]
    need = fit.need_of(model, None, {}, frozenset({"body.weight"}))
    assert (need.weights, need.parameters, need.dtype, need.half) == (2 * (64 * 8 + 8 + 64 * 64), 4616, "float16", None)
    assert need.nf4 == 2 * (64 * 8 + 8) + 64 * 64 // 2 + 64 + 4 + 4 + 64 + 1024
    assert fit.need_of(model.float(), None, {}, frozenset()).half == need.weights
    assert fit.need_of(model.half(), None, {"body.weight": "disk"}, frozenset()).weights == 2 * (64 * 8 + 8)
    model.all_tied_weights_keys = {"head.weight": "body.weight"}  # type: ignore[assignment]
    assert fit.need_of(model, None, {}, frozenset()).weights == 2 * (8 + 64 * 64)
    quantizer = SimpleNamespace(
        quantization_config=SimpleNamespace(load_in_8bit=True),
        param_needs_quantization=lambda model, name: name == "body.weight",
        param_element_size=lambda model, name, tensor: 2,
    )
    assert fit.need_of(model, quantizer, {}, frozenset()).weights == 2 * 8 + 64 * 64 + 64 * 4
    assert fit.knows(None) and fit.knows(quantizer)
    assert not fit.knows(SimpleNamespace(quantization_config=SimpleNamespace(quant_method="gptq")))
