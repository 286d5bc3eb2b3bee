"""python -m patcher drift, with an index that is a folder of wheels: no test asks the network."""

from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from patcher.drift import archives, fetch, releases
from patcher.drift.archives import Release
from patcher.errors import ReleaseUnreadable
from tests.drift.fakes import ROOTS, expected, wheel
from tests.process import run_module

pytestmark = pytest.mark.slow

NEEDED, OPTIONAL = "utils", "geglu"
"""Modules of ``unsloth.kernels``: training needs a function of the first one, and none of the second one."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three releases: as expected, without an optional module, without one that training needs; and one too new."""
    folder = tmp_path_factory.mktemp("index")
    whole = expected("unsloth")
    for patch, gone in enumerate([None, OPTIONAL, NEEDED], 1):
        files = {path: text for path, text in whole.items() if path != f"unsloth/kernels/{gone}/__init__.py"}
        files["unsloth/new.py"] = "import triton\n@triton.jit\ndef brand_new(): ...\n"
        wheel(folder, "unsloth", f"2026.11.{patch}", files, "torch", "unsloth_zoo>=2026.11.2")
    for version in ("2026.11.1", "2026.11.2", "2026.11.3"):
        wheel(folder, "unsloth_zoo", version, expected("unsloth_zoo"))
    wheel(folder, "unsloth", "2026.12.0rc1", whole)
    return folder


@pytest.fixture
def variables(index: Path, tmp_path: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PATCHER_CACHE": str(tmp_path / "cache")}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    fetch.versions.cache_clear()
    yield
    fetch.versions.cache_clear()


def drift(variables: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_module("patcher", "drift", *arguments, check=False, **variables)


def test_a_version(variables: dict[str, str], tmp_path: Path) -> None:
    """The zoo is the one that it names, not the newest; what is kept is small and is not fetched again."""
    done = drift(variables, "2026.11.2")
    assert done.returncode == 0, done.stderr
    first, second, *rest = done.stdout.splitlines()
    assert first == "unsloth 2026.11.2 with unsloth-zoo 2026.11.2: trains without 4 optional changes"
    assert second.endswith(" changes fit")
    assert "  no such module: unsloth.kernels.geglu:geglu_exact_forward_kernel (optional)" in rest
    assert "      file:       patcher/changes/unsloth/geglu.py" in rest
    assert "1 Triton kernels: 1 new and " in done.stdout and "  new   unsloth.new: brand_new" in rest
    kept = sorted(path.name for path in (tmp_path / "cache" / "releases").iterdir())
    assert kept == ["unsloth-2026.11.2.zip", "unsloth-zoo-2026.11.2.zip"]


def test_the_newest_release_is_the_default_and_a_final_one(variables: dict[str, str]) -> None:
    """Exit code 1: training needs what it lacks. JSON has every change."""
    done = drift(variables, "--json")
    assert done.returncode == 1, done.stderr
    data = json.loads(done.stdout)
    assert (data["version"], data["with"], data["trains"]) == ("2026.11.3", {"unsloth-zoo": "2026.11.2"}, False)
    assert data["verdict"] == "refused: fast_dequantize"
    assert data["required_missing"] == ["unsloth.kernels.utils:fast_dequantize"]
    states = {change["status"] for change in data["changes"]}
    assert states == {"fits", "no such module", "not needed"} and data["kernels"]["new"] == {
        "unsloth.new": ["brand_new"]
    }


def test_every_release(variables: dict[str, str], tmp_path: Path) -> None:
    """A line each; one that cannot be read does not keep the others from being read."""
    (tmp_path / "cache" / "releases").mkdir(parents=True)
    (tmp_path / "cache" / "releases" / "unsloth-2026.11.1.zip").write_bytes(b"cut")
    done = drift(variables, "--all", "--since", "2026.11.1")
    assert done.returncode == 1, done.stderr
    first, second, third = done.stdout.splitlines()[2:]
    assert first.startswith("| 2026.11.1 | ") and "not read: BadZipFile" in first
    assert second.startswith("| 2026.11.2 | 2026-10-27 | unsloth-zoo 2026.11.2 | ")
    assert second.endswith(" | 0 | 4 | trains without 4 optional changes |")
    assert third.endswith(" | 1 | 1 | refused: fast_dequantize |")
    data = json.loads(drift(variables, "--all", "--since", "2026.11.1", "--json").stdout)
    assert [entry["version"] for entry in data] == ["2026.11.1", "2026.11.2", "2026.11.3"]
    assert "cannot be read" in data[0]["unread"] and data[1]["trains"]


def test_files(index: Path, variables: dict[str, str]) -> None:
    """Both from files ask no index; a missing partner is fetched."""
    both = [index / f"{name}-2026.11.1-py3-none-any.whl" for name in ("unsloth_zoo", "unsloth")]
    offline = variables | {"PIP_FIND_LINKS": "/nowhere"}
    done = drift(offline, *both)
    assert done.returncode == 0 and done.stdout.startswith("unsloth 2026.11.1 with unsloth-zoo 2026.11.1: trains as")
    assert drift(variables, both[1]).stdout.startswith("unsloth 2026.11.1 with unsloth-zoo 2026.11.2: trains as")
    zoo = drift(offline, both[0], "--library", "unsloth_zoo")
    assert zoo.stdout.startswith("unsloth-zoo 2026.11.1: trains as reviewed\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["2026.11.9"], "No matching distribution found for unsloth==2026.11.9"),
        (["newest"], "this is no version, and there is no such file"),
        (["2026.11.1", "2026.11.2"], "there is no such file"),
        (["--library", "torch"], "no change of this library can be compared"),
        (["--library", "numpy"], "expected:  accelerate, bitsandbytes, transformers"),
        (["--all", "--since", "2027"], "there is no release since then"),
        (["--all", "2026.11.1"], "--all takes no version"),
    ],
)
def test_what_was_meant_is_not_there(variables: dict[str, str], arguments: list[str], said: str) -> None:
    """Exit code 2 and an error of ours; nothing on stdout but the table's head."""
    done = drift(variables, *arguments)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr


def test_a_file_of_another_library(index: Path, variables: dict[str, str]) -> None:
    done = drift(variables, index / "unsloth_zoo-2026.11.1-py3-none-any.whl")
    assert done.returncode == 2 and "none of the files is a release of unsloth" in done.stderr


def test_no_index(variables: dict[str, str]) -> None:
    """As without a network: no release can be listed."""
    done = drift(variables | {"PIP_FIND_LINKS": "/nowhere"})
    assert done.returncode == 2 and "the releases cannot be listed" in done.stderr
    assert "nothing was written" in done.stderr and "patcher drift WHEEL" in done.stderr


def test_a_full_disk_leaves_nothing_half_written(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept before stays; the next attempt starts from nothing."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    fetch.release("unsloth", Version("2026.11.1"), ROOTS)

    def full(path: Path, *_: object) -> None:
        path.write_bytes(b"PK")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(archives, "write", full)
        with pytest.raises(ReleaseUnreadable, match=r"(?s)No space left.*PATCHER_CACHE"):
            fetch.release("unsloth", Version("2026.11.2"), ROOTS)
    assert [path.name for path in (tmp_path / "cache" / "releases").iterdir()] == ["unsloth-2026.11.1.zip"]
    assert str(fetch.release("unsloth", Version("2026.11.2"), ROOTS).version) == "2026.11.2"


def test_a_cache_that_cannot_be_made(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("PATCHER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ReleaseUnreadable, match="the release cannot be kept"):
        fetch.release("unsloth", Version("2026.11.1"), ROOTS)


@pytest.mark.parametrize(
    ("requires", "wanted"),
    [
        (["unsloth_zoo>=2026.11.2"], "2026.11.2"),
        (["unsloth-zoo==2026.11.1"], "2026.11.1"),
        (["unsloth_zoo>=2026.11.1,<2026.11.3"], "2026.11.2"),
        (["unsloth_zoo>=2026.11.9"], "2026.11.9"),
        (["unsloth_zoo[core]", "?", "unsloth_zoo>=2026.11.1; extra == 'base'"], "2026.11.1"),
        ([], "2026.11.3"),
    ],
)
def test_the_zoo_of_a_release(
    requires: list[str], wanted: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The newest one up to the version that the metadata name; the one that is named where the index lacks it."""
    there = tuple(Version(f"2026.11.{patch}") for patch in (3, 2, 1))
    asked: list[str] = []

    def fetched(name: str, version: Version, _: object) -> Release:
        asked.append(f"{name} {version}")
        return Release(name, version, None, (), {})

    monkeypatch.setattr(fetch, "versions", lambda _: there)
    monkeypatch.setattr(fetch, "release", fetched)
    releases.of_files("unsloth", [wheel(tmp_path, "unsloth", "2026.11.9", {}, *requires)])
    assert asked == [f"unsloth-zoo {wanted}"]
    monkeypatch.undo()  # before `forgotten` asks the real function
