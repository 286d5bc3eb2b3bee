"""float64 becomes float32 on mps wherever a script asks for it; an error where numbers would lose their meaning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from patcher.environment import switches
from patcher.errors import Float64OnMps, InvalidSwitch
from tests.process import run_module, run_python

F32 = "torch.float32"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``narrowing`` found in a process of its own."""
    file = tmp_path_factory.mktemp("float64") / "found.json"
    run_module("tests.changes.torch.narrowing", file, timeout=300)
    answers: dict[str, Any] = json.loads(file.read_text())
    return answers


def test_what_is_moved_is_rounded_once(found: dict[str, Any]) -> None:
    assert len(found["moved"]) == 18
    assert found["moved"] == {name: [F32, "mps", True] for name in found["moved"]}


def test_what_is_made_there_is_float32(found: dict[str, Any]) -> None:
    assert len(found["others"]) == 19
    assert found["others"] == {name: [F32, "mps"] for name in found["others"]}
    assert found["complex"] == "torch.complex64"


def test_it_is_said_once_with_the_line(found: dict[str, Any]) -> None:
    (said,) = found["said"]
    assert "tests/changes/torch/narrowing.py:" in said and "PATCHER_FLOAT64=error" in said


@pytest.mark.parametrize(
    ("case", "named", "number"),
    [
        ("identifiers", "IDS", "16777217.0"),
        ("by cuda()", "IDS", "16777217.0"),
        ("unsigned", "a tensor", "16777217.0"),
        ("sparse", "a tensor", "16777217.0"),
        ("in a batch", '"labels"', "1e+300"),
        ("in a module", "Linear.ids", "16777217.0"),
        ("from numpy", "a tensor", "16777217.0"),
        ("complex", "a tensor", "16777217.0"),
        ("full", "a tensor", "16777217.0"),
        ("arange", "a tensor", "16777217.0"),
        ("counts on mps", "a tensor", "16777217"),
        ("a sum of counts", "a tensor", "beyond 16777216"),
    ],
)
def test_numbers_that_would_be_others_are_refused(case: str, named: str, number: str, found: dict[str, Any]) -> None:
    """The tensor, its line, the number and the cure are named; it is a TypeError, as torch's."""
    text = found["names"][case]
    assert text.startswith("Float64OnMps: mps has no float64")
    assert f"target:    {named}," in text and "narrowing.py:" in text
    assert number in text and ("write .long()" in text or "torch.int64" in text)
    assert issubclass(Float64OnMps, TypeError)


def test_what_float32_can_tell_is_moved(found: dict[str, Any]) -> None:
    """Whole numbers that float32 has, measures that are rounded, infinities."""
    assert len(found["kept"]) == 4 and all(found["kept"].values())


def test_bytes_of_a_storage_are_not_read_in_another_type(found: dict[str, Any]) -> None:
    """torch itself makes an empty tensor, and lays it over a storage of float64."""
    assert found["storage"].startswith("TypeError: Cannot convert a MPS Tensor to float64")


def test_the_gradient_has_the_type_of_the_source(found: dict[str, Any]) -> None:
    assert found["gradient"] == ["torch.float64", "cpu", [2.0, 4.0], True]


def test_the_cpu_keeps_float64(found: dict[str, Any]) -> None:
    assert found["cpu"] == ["torch.float64"] * 3
    assert found["back"] == "torch.float64"


def test_compiled_and_exported_code_is_torchs(found: dict[str, Any]) -> None:
    assert found["as torch"] == {"compile": 0.0, "export": 0.0, "make_fx": 0.0}


def test_other_errors_keep_torchs_words(found: dict[str, Any]) -> None:
    assert found["words"][0] == "TypeError: sum(): argument 'input' (position 1) must be Tensor, not int"
    assert found["words"][1].startswith("TypeError: to() received an invalid combination of arguments")


def test_undo_gives_the_refusal_back(found: dict[str, Any]) -> None:
    assert found["undone"].startswith("TypeError: Cannot convert a MPS Tensor to float64")


def test_the_switch_stops_at_the_line(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from patcher import patch_for_mac\npatch_for_mac(simulate='M1 8GB')\nimport torch\n"
        "torch.ones(2).cuda()\nweights = torch.ones(2).double()\nweights.cuda()\n"
    )
    done = run_python(script, check=False, PATCHER_FLOAT64="error")
    assert done.returncode == 1
    assert "weights, torch.float64 of shape (2,), at" in done.stderr and "script.py:6" in done.stderr


def test_another_word_is_no_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHER_FLOAT64", "error")
    assert switches().float64 == "error"
    monkeypatch.setenv("PATCHER_FLOAT64", "maybe")
    with pytest.raises(InvalidSwitch, match="float32 or error"):
        switches()
