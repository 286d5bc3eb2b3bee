"""The names by which variants are left out and asked for."""

from __future__ import annotations

import pytest

from patcher import patch_for_mac
from patcher.environment import FORCE, WITHOUT, value_of
from patcher.errors import InvalidSwitch
from patcher.ops.variants import names
from tests.process import run_python

pytestmark = pytest.mark.usefixtures("unset")


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WITHOUT, raising=False)
    monkeypatch.delenv(FORCE, raising=False)


@pytest.mark.parametrize("pattern", ["metal", "metal:rms_norm", "metal:rms*"])
def test_a_variant_is_left_out_by_its_name_or_a_glob(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone or beside names of changes."""
    assert not names.left_out("metal", "rms_norm")
    monkeypatch.setenv(WITHOUT, f"trl, {pattern}")
    assert names.is_one(pattern) and names.left_out("metal", "rms_norm")


@pytest.mark.parametrize("pattern", ["metal:no_such_op", "torch", "metals", "trl", "*"])
def test_what_names_no_variant(pattern: str) -> None:
    """It is a name of changes, or an error there."""
    assert not names.is_one(pattern)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", None),
        ("metal", "metal"),
        ("torch", "torch"),
        ("metal:rms_norm", "metal"),
        ("torch:rms_norm,metal", "torch"),
    ],
)
def test_the_first_that_fits_is_forced(asked: str, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For one op or for all."""
    monkeypatch.setenv(FORCE, asked)
    assert names.forced("rms_norm") == expected


def test_what_is_no_variant_cannot_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the names that there are, and comes before anything is patched."""
    monkeypatch.setenv(FORCE, "metal:rms_nrom")
    with pytest.raises(InvalidSwitch, match="rms_norm"):
        names.forced("rms_norm")


def test_the_argument_reaches_the_ops_until_undo() -> None:
    """Through the variable, which processes inherit; a name of a variant is none of a change."""
    script = """
        import os
        from patcher import patch_for_mac
        from patcher.ops.variants import names
        os.environ["PATCHER_WITHOUT"] = "trl"
        handle = patch_for_mac(simulate=True, without="metal:rms_norm,torch.cuda:memory_summary")
        assert os.environ["PATCHER_WITHOUT"] == "trl,metal:rms_norm", os.environ["PATCHER_WITHOUT"]
        assert names.left_out("metal", "rms_norm")
        names.CHOICES.append({1: 2})
        handle.undo()
        assert os.environ["PATCHER_WITHOUT"] == "trl" and names.CHOICES == [{}]
        os.environ["PATCHER_FORCE"] = "metall"
        try:
            patch_for_mac(simulate=True)
        except Exception as error:
            print(type(error).__name__)
    """
    assert run_python("-c", "\n".join(line[8:] for line in script.splitlines())).stdout == "InvalidSwitch\n"


def test_where_nothing_is_patched_a_name_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux without a simulated Mac the variable stays as it is."""
    monkeypatch.delenv("UNSLOTH_SIMULATE_MAC", raising=False)
    assert not patch_for_mac(without="metal:rms_norm").active
    assert value_of(WITHOUT) is None
