"""What a change is: frozen data with a key that names it."""

from __future__ import annotations

import dataclasses

import pytest

from patcher.engine.model import AnyChange, EnvDefault, Kernel, Patch, Shim, Substitute
from tests.process import run_python

TEXT = {"distribution": "lib", "reviewed": "==1.*", "why": "", "upstream": "", "until": ""}
CHANGES: dict[str, tuple[AnyChange, tuple[str, ...]]] = {
    "lib.part:Base.method": (
        Patch(target="lib.part:Base.method", replacement="ours:f", needed_for=None, **TEXT),
        ("lib.part:Base.method", "lib.part:Base", "lib.part", "lib", "lib"),
    ),
    "module lib.part": (
        Substitute(module="lib.part", needed_for=None, **TEXT),
        ("module lib.part", "lib.part", "lib", "lib"),
    ),
    "aten::mm.out on MPS": (
        Kernel(op="aten::mm.out", dispatch_key="MPS", replacement="ours:f", needed_for=None, **TEXT),
        ("aten::mm.out on MPS", "aten::mm.out", "aten::mm", "lib"),
    ),
    "shim lib": (Shim(module="lib", version="1", needed_for=None, **TEXT), ("shim lib", "lib")),
    "$LIB_SWITCH": (
        EnvDefault(name="LIB_SWITCH", value="1", needed_for=None, **TEXT),
        ("$LIB_SWITCH", "LIB_SWITCH"),
    ),
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_change_has_its_key_and_its_names(key: str) -> None:
    """The key is what the report prints; the names are what ``without=`` takes, the key first."""
    change, names = CHANGES[key]
    assert change.key == key and change.names == names


@pytest.mark.parametrize("key", CHANGES)
def test_a_change_is_frozen_and_required_where_training_needs_it(key: str) -> None:
    change, _ = CHANGES[key]
    assert not change.required and dataclasses.replace(change, needed_for="a loss").required
    with pytest.raises(dataclasses.FrozenInstanceError):
        change.why = "another"  # type: ignore[misc]


def test_a_target_is_a_module_and_a_name_within_it() -> None:
    change = CHANGES["lib.part:Base.method"][0]
    assert isinstance(change, Patch) and (change.module, change.qualname) == ("lib.part", "Base.method")


def test_the_data_is_read_without_torch() -> None:
    """`patch_for_mac()` reads all of it before a script imports anything."""
    run_python("-c", "import sys, patcher.engine.model; assert not {'torch', 'rich', 'packaging'} & set(sys.modules)")
