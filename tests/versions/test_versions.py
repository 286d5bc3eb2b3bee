"""The oldest release that trains, with the libraries of its day, and the newest ones without Unsloth."""

from __future__ import annotations

import subprocess

import pytest

from tests.process import ROOT
from tests.versions import environment, locks
from tests.versions.trial import problems, problems_of_demo, tried

FOLDER = ROOT / "build" / "versions"


@pytest.mark.parametrize("name", locks.names())
def test_a_file_pins_what_trains(name: str) -> None:
    """The release that it is named after, and every library of its day but Unsloth where it is not there."""
    found = locks.pins(locks.LOCKS / f"{name}.txt")
    assert set(locks.OF_THE_DAY) - found.keys() <= {"unsloth", "unsloth-zoo"}
    assert "torch" not in found
    assert found.get("unsloth", name) == name.partition("+")[0]


def test_what_is_wrong_is_named() -> None:
    """A loss beyond its bound, NaN, a model in 16 bit instead of 4, another device, a traceback."""
    layers = {str(number): "Linear4bit torch.uint8" for number in range(14)}
    good = {"device": "mps", "class": "UnslothSFTTrainer", "loss": 1e-3, "layers": layers}
    name = "sft-nf4-bfloat16"

    pins = {"unsloth": "2026.9.1", "transformers": "5.5.0"}

    def said(**other: object) -> list[str]:
        return problems({name: {**good, **other}}, pins)

    assert said() == []
    assert said(loss=0.5) == [f"{name}: loss off by 5e-01"]
    assert said(loss=float("nan")) == [f"{name}: loss off by nan"]
    assert said(layers={}) == [f"{name}: 0 layers in 4 bit"]
    assert said(device="cpu") == [f"{name}: on cpu"]
    assert problems({name: good}, {}) == [f"{name}: trained by UnslothSFTTrainer"]
    assert said(failed="Traceback\n  File\nValueError: no\n") == [f"{name}: ValueError: no"]


def test_what_is_wrong_with_the_demo_is_named() -> None:
    """Losses that are not the model's at the beginning, that do not fall, that are not there; a traceback."""
    good = {"losses": [4.4, 3.9, 4.0, 4.0, 4.0, 3.5, 3.5, 3.5, 3.5, 3.5], "expected": [[4.41, 3.88], [4.0, 3.5]]}
    assert problems_of_demo({}) == problems_of_demo(good) == []
    assert problems_of_demo({**good, "expected": [[4.0, 3.9], [4.4, 3.5]]}) == ["demo: loss off by 1e-01"]
    assert problems_of_demo({**good, "losses": [4.4, 3.9] * 5}) == ["demo: loss 4.20 to 4.10"]
    assert problems_of_demo({**good, "losses": [4.4, 3.9]}) == ["demo: 2 steps"]
    assert problems_of_demo({**good, "expected": [[float("nan")] * 2]}) == ["demo: loss off by nan"]
    assert problems_of_demo({"failed": "Traceback\n  File\nValueError: no\n"}) == ["demo: ValueError: no"]


@pytest.mark.parametrize(
    ("unsloth", "transformers", "known"),
    [("2026.9.10", "5.5.0", True), ("2026.9.12", "5.5.0", False), ("2026.9.10", "5.3.0", False)],
)
def test_what_is_wrong_on_every_device_is_told_apart(unsloth: str, transformers: str, known: bool) -> None:
    """With the versions that have it together, and for its kind of runs."""
    runs = {"sft_gemma2-float32": {"failed": "ValueError: no"}, "sft-float32": {"failed": "ValueError: no"}}
    said = problems(runs, {"unsloth": unsloth, "transformers": transformers})
    assert len(said) == (1 if known else 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2026.2.1"])
def test_the_oldest_release_trains(name: str) -> None:
    """SFT in fp32 and 4 bit, answers and files; what it needs is installed beside everything else, once."""
    try:
        environment.path(locks.pins(locks.LOCKS / f"{name}.txt"), FOLDER / "packages")
    except subprocess.CalledProcessError as error:
        if is_unreachable(error.stderr):
            pytest.skip(f"the index cannot be reached: {error.stderr.strip().splitlines()[-1]}")
        raise AssertionError(error.stderr) from error
    found = tried(name, FOLDER, runs=(("sft", "float32"), ("sft", "nf4-bfloat16")))
    assert found["problems"] == [], found.get("said")
    assert found["runs"]["sft-float32"]["tokens"]


def is_unreachable(said: str) -> bool:
    """Whether pip found no index, rather than no such release in it."""
    return "(from versions: none)" in said or "Connection" in said or "Max retries" in said


def test_an_index_that_cannot_be_reached_is_told_from_a_missing_release() -> None:
    assert is_unreachable("ERROR: Could not find a version that satisfies the requirement x (from versions: none)")
    assert not is_unreachable("ERROR: Could not find a version that satisfies x==9 (from versions: 1.0, 1.1)")
