"""Building the simulated device: once, atomically, and with a cure for whatever is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from patcher import environment
from patcher.errors import SimulatorUnavailable
from patcher.simulator import build

COMPILER = """#!/bin/sh
echo "$@" >> "{log}"
while [ $# -gt 1 ]; do [ "$1" = -o ] && target="$2"; shift; done
{body}
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PATCHER_CACHE", str(folder))
    return folder


def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str = 'echo built > "$target"') -> Path:
    """Puts a stand-in compiler in place, which is quick; returns the log of its calls."""
    log, program = tmp_path / "calls", tmp_path / "cxx"
    program.write_text(COMPILER.format(log=log, body=body))
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    return log


def test_built_once_and_announced(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first call compiles every source once and says so in one line; the second finds the result."""
    body = f'cat "${{target%.o}}.cpp" >> {tmp_path}/read; echo built > "$target"'
    log = compiler(tmp_path, monkeypatch, body)
    path = build.library(torch)
    calls = log.read_text().splitlines()
    assert len(calls) == build.UNITS + 1
    included = re.findall('#include "(.*)"', (tmp_path / "read").read_text())
    assert sorted(included) == sorted(map(str, build.SOURCES.glob("*.cpp")))
    assert path.read_text() == "built\n" and cache in path.parents
    (message,) = capsys.readouterr().err.splitlines()
    assert f"building the simulated mps device for torch {torch.__version__} (once, about" in message
    assert build.library(torch) == path
    assert log.read_text().splitlines() == calls and capsys.readouterr().err == ""


def test_a_failed_or_killed_build_leaves_nothing_usable(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of the compiler are shown; the next call starts over and clears what a killed one left."""
    compiler(tmp_path, monkeypatch, 'echo "x.cpp:1: error: no such thing" >&2; exit 3')
    with pytest.raises(SimulatorUnavailable, match="no such thing"):
        build.library(torch)
    assert not list(cache.glob("simulated-mps/*building*"))
    leftover = cache / "simulated-mps" / f"{build.key(torch)}.building-killed"
    leftover.mkdir()
    compiler(tmp_path, monkeypatch)
    assert build.library(torch).exists()
    assert not leftover.exists()


@pytest.mark.slow
def test_two_processes_build_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first and takes its result."""
    log = compiler(tmp_path, monkeypatch, 'sleep 0.05; echo built > "$target"')
    code = "import types, torch; from patcher.simulator import build; print(build.library(torch))"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    paths = {process.communicate()[0] for process in processes}
    assert len(paths) == 1
    assert len(log.read_text().splitlines()) == build.UNITS + 1


def test_key_changes_with_source_and_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another source text or another torch is another build."""
    before = build.key(torch)
    other = types.SimpleNamespace(__version__="2.13.1", version=torch.version)
    assert build.key(other) != before  # type: ignore[arg-type]
    copy = tmp_path / "native"
    copy.mkdir()
    for path in build.SOURCES.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "SOURCES", copy)
    assert build.key(torch) == before
    (copy / "module.cpp").write_text("// other")
    assert build.key(torch) != before


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PATCHER_CACHE, else XDG_CACHE_HOME, else ~/.cache."""
    monkeypatch.setenv("PATCHER_CACHE", str(tmp_path))
    assert environment.cache_folder() == tmp_path
    monkeypatch.delenv("PATCHER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert environment.cache_folder() == tmp_path / "patch-for-mac"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.cache_folder() == tmp_path / ".cache" / "patch-for-mac"


def test_no_compiler_names_the_package_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither CXX nor any usual compiler."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SimulatorUnavailable, match=r"sudo apt install g\+\+"):
        build.library(torch)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SimulatorUnavailable, match="CXX=no-such-compiler"):
        build.library(torch)


def test_no_python_headers_names_the_package(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python.h is needed, and may be missing beside a system Python."""
    compiler(tmp_path, monkeypatch)
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(SimulatorUnavailable, match=r"sudo apt install python3\.\d+-dev"):
        build.library(torch)


def test_cache_that_cannot_be_written_names_the_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file where the folder should be."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("PATCHER_CACHE", str(blocked))
    with pytest.raises(SimulatorUnavailable, match="set PATCHER_CACHE to another folder"):
        build.library(torch)


@pytest.mark.parametrize(
    ("version", "cuda", "text"),
    [("2.12.1", None, "torch 2.12.1"), ("2.14.0+cpu", None, "torch 2.14.0"), ("2.13.0", "13.0", "built for 13.0")],
)
def test_other_torch_builds_are_refused(version: str, cuda: str | None, text: str) -> None:
    """Another release, and a CUDA build, get the command that installs the right one."""
    other = types.SimpleNamespace(__version__=version, version=types.SimpleNamespace(cuda=cuda, hip=None))
    with pytest.raises(SimulatorUnavailable, match=text) as caught:
        build.check_machine(other)  # type: ignore[arg-type]
    assert "pip install torch==2.13.0" in str(caught.value)


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS there is the real device."""
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(SimulatorUnavailable, match="on a Mac use the real device"):
        build.check_machine(torch)
