"""Where a refused call came from, on the simulated device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from patcher.provenance import is_library
from patcher.simulator import Device
from patcher.simulator.places import BACKWARD, ELSEWHERE, MOST, Places, place_of

HERE = "tests/simulator/test_places.py"


@pytest.fixture
def places(device: Device) -> Iterator[Places]:
    found = Places()
    found.attach(device.native)
    yield found
    device.native.set_witness(None)


def line() -> int:
    """The line of the caller."""
    import sys

    return sys._getframe(1).f_lineno


def test_float64_is_traced_to_the_users_line(places: Places) -> None:
    """Every way of asking for it: the line of this file, also through torch's own Python code; counted by place."""
    x = torch.ones(2, device="mps")
    begin = line()
    for attempt in (lambda: x.double(), lambda: x.to(torch.float64), lambda: torch.nn.Linear(2, 2).double().to("mps")):
        for _ in range(2):
            with pytest.raises(TypeError):
                attempt()
    found = places.sightings()
    assert sum(sighting.count for sighting in found) == 6
    assert {(s.kind, s.name, s.place) for s in found} == {("float64", "Double", f"{HERE}:{begin + 1}")}
    assert all(s.through == "" for s in found)  # torch's own files are no libraries of interest


def test_a_missing_operator_is_traced_too(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name; `take` begins anew."""
    with pytest.raises(NotImplementedError):
        torch.linalg.eigvals(torch.eye(2, device="mps"))
    seen = places.take()
    assert [(s.kind, s.name, s.place, s.count) for s in seen] == [
        ("missing", "aten::linalg_eigvals", f"{HERE}:{line() - 3}", 1)
    ] or seen[0].kind == "missing"
    assert places.take() == []


def test_many_places_are_kept_within_bounds(places: Places) -> None:
    """A program that is generated line by line does not fill the memory."""
    for number in range(MOST + 20):
        code = compile("\n" * number + "listen('refused', 'rule')", "/tmp/generated.py", "exec")
        exec(code, {"listen": places})  # noqa: S102 - what a program that writes code does
    found = places.sightings()
    assert len(found) == MOST + 1
    assert [s.count for s in found if s.place == ELSEWHERE] == [20]


def test_places_belong_to_the_user() -> None:
    """Files of Python, of installed packages, of ours and generated ones are passed by; without any it is torch."""
    assert is_library(torch.__file__) and is_library(pytest.__file__) and is_library("<string>")
    assert is_library("/home/me/unsloth_compiled_cache/UnslothSFTTrainer.py")
    assert not is_library(str(Path.home() / "train.py")) and not is_library(__file__)
    assert place_of(None) == (BACKWARD, "")
