"""The command that runs families side by side: what it asks for, refuses and prints. Nothing is trained here."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from patcher.bench import table
from patcher.bench.command import Run, orders
from patcher.bench.families import FAMILIES
from patcher.bench.measure import Figures, Order
from patcher.errors import InvalidSwitch, MissingLibrary

FIGURES = Figures(0.002, 0.01, None, 3 * 2**20, (5.5, 5.5, 5.0), ["aten::_ctc_loss"])


def test_every_model_dtype_and_device_is_one_run() -> None:
    """Those to be compared stand together."""
    found = orders("llama,vit", "mps,cpu", "float32,bfloat16", rows=2, steps=1)
    assert [(o.model, o.dtype, o.device) for o in found] == [
        (model, dtype, device)
        for model in ("llama", "vit")
        for dtype in ("float32", "bfloat16")
        for device in ("mps", "cpu")
    ]


@pytest.mark.parametrize(
    "model, device, dtype", [("lama", "cpu", "float32"), ("vit", "cuda", "float32"), ("vit", "cpu", "fp8")]
)
def test_an_unknown_name_is_refused_with_those_that_exist(model: str, device: str, dtype: str) -> None:
    """The message names what was given and what could be."""
    with pytest.raises(InvalidSwitch, match=r"is not known[\s\S]*expected: .*(llama|mps|float16)"):
        orders(model, device, dtype, rows=2, steps=1)


def test_a_package_that_a_loss_imports_is_asked_for_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """DETR's loss matches boxes with scipy."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingLibrary, match="pip install scipy"):
        orders("detr", "cpu", "float32", rows=2, steps=1)


def test_the_table_holds_devices_side_by_side_in_80_columns() -> None:
    """Time, rows per second, memory, and how far the losses are apart."""
    cpu = Figures(0.004, 0.02, None, 5 * 2**20, (5.5, 5.5, 5.0005))
    runs = [Run(Order("llava-next", "mps", "bfloat16"), FIGURES), Run(Order("llava-next", "cpu", "bfloat16"), cpu)]
    out = io.StringIO()
    table.show(runs, Console(file=out, width=80), simulated=True)
    text = out.getvalue()
    assert "…" not in text
    assert [line.split() for line in text.splitlines() if line.startswith("llava-next ") and "16" in line] == [
        ["llava-next", "bfloat16", "mps", "2.00", "10.00", "200.0", "3.0", "5.00000", "1e-04"],
        ["llava-next", "bfloat16", "cpu", "4.00", "20.00", "100.0", "5.0", "5.00050"],
    ]
    assert "llava-next ran on the CPU: _ctc_loss" in text
    assert "simulated" in text


def test_a_run_that_failed_is_shown_with_its_last_words() -> None:
    """The others are shown too."""
    runs = [
        Run(Order("vit", "mps", "float32"), None, "RuntimeError: boom"),
        Run(Order("vit", "cpu", "float32"), FIGURES),
    ]
    out = io.StringIO()
    table.show(runs, Console(file=out, width=80), simulated=False)
    assert "vit float32 mps failed: RuntimeError: boom" in out.getvalue()
    assert "200.0" in out.getvalue()


def test_the_registry_is_by_name_and_batches_hold_what_generation_takes() -> None:
    """A family's batch has the keys that its generation is given, and the rows that were asked for."""
    for name, family in FAMILIES.items():
        assert family.name == name
        batch = family.batch(3)
        assert set(family.generates) <= set(batch)
        assert "labels" in batch or batch["return_loss"]
        first = next(value for key, value in batch.items() if key.startswith("input") or key == "pixel_values")
        assert len(first) == 3
