"""``python -m patcher run`` is ``python``, as far as the program that it runs can tell."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from tests.process import clean_environment, run_python

ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1"}
RUN = ("-m", "patcher", "run")


def call(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """What an interpreter with these arguments prints, and its exit code."""
    return run_python(*arguments, cwd=cwd, stdin=stdin, check=False, timeout=300, **ENVIRONMENT)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))


def assert_same(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Output, error output and exit code under ``run`` are those of plain python; returns the latter."""
    plain = call(*arguments, cwd=folder, stdin=stdin)
    patched = call(*RUN, *arguments, cwd=folder, stdin=stdin)
    assert (patched.stdout, patched.stderr, patched.returncode) == (plain.stdout, plain.stderr, plain.returncode)
    return plain


SHOW = """
    import inspect, sys
    class Shown: pass
    hidden = ("Shown", "inspect", "hidden", "sys", "__builtins__", "__loader__", "__spec__")
    print({name: value for name, value in sorted(globals().items()) if name not in hidden})
    print(sys.argv, sys.path, type(__loader__), __spec__ and __spec__.name, __builtins__, sys.excepthook)
    print(sys.modules["__main__"].Shown is Shown, Shown.__module__, __name__ == "__main__")
"""


def test_a_script_sees_what_python_shows_it(tmp_path: Path) -> None:
    """Globals, arguments (options, ``--`` and ``-m`` included), import path and hooks are python's."""
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", show=SHOW)
    (tmp_path / "linked.py").symlink_to(tmp_path / "below" / "show.py")
    assert "'--lr', '1'" in assert_same(tmp_path, "below/show.py", "--lr", "1", "-m", "--", "--verbose", "").stdout
    assert str(tmp_path / "below") in assert_same(tmp_path, "./linked.py").stdout


def test_a_module_sees_what_python_shows_it(tmp_path: Path) -> None:
    """The same for ``-m``, whose options of that name are the module's own."""
    (tmp_path / "package").mkdir()
    write(tmp_path / "package", __init__="", __main__=SHOW, part=SHOW)
    assert "'--verbose'" in assert_same(tmp_path, "-m", "package.part", "--verbose", "-m").stdout
    assert_same(tmp_path, "-m", "package")


def test_standard_input_a_folder_and_a_zip_file_run(tmp_path: Path) -> None:
    """``-``, a folder and a zip file with a ``__main__.py`` are run as python runs them."""
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder", __main__=SHOW)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        packed.writestr("__main__.py", textwrap.dedent(SHOW))
    assert_same(tmp_path, "-", "a", stdin=textwrap.dedent(SHOW))
    assert_same(tmp_path, "folder", "a")
    assert_same(tmp_path, "packed.zip")


@pytest.mark.parametrize(
    "body",
    [
        "import sys; print('out'); sys.exit()",
        "import sys; sys.exit(7)",
        "import sys; sys.exit('a message')",
        "raise SystemExit(['a', 'list'])",
        "import atexit; atexit.register(print, 'at exit'); raise SystemExit(3)",
        "import os; print('no flush', flush=True); os._exit(9)",
    ],
)
def test_exit_codes_are_the_scripts(tmp_path: Path, body: str) -> None:
    """Every way of leaving gives python's exit code and message."""
    write(tmp_path, script=body)
    assert_same(tmp_path, "script.py")


@pytest.mark.parametrize(
    "body",
    [
        "def f():\n    1 / 0\ntry:\n    f()\nexcept ArithmeticError as error:\n    raise KeyError(1) from error\n",
        "def broken(:\n",
        "import no_such_module\n",
        "import sys\nsys.excepthook = lambda *found: print('hook', found[0], found[2].tb_frame.f_lineno)\n1 / 0\n",
        "def f(n):\n    if n == 0:\n        1 / 0\n    f(n - 1)\nf(5)\n",
    ],
    ids=["chained", "syntax", "import", "hook", "recursion"],
)
def test_tracebacks_are_pythons(tmp_path: Path, body: str) -> None:
    """An uncaught exception is printed without a frame of ours, and the exit code is 1."""
    write(tmp_path, script=body)
    assert assert_same(tmp_path, "script.py").returncode == 1


def test_a_modules_traceback_is_pythons(tmp_path: Path) -> None:
    """Under ``-m`` the frames are runpy's and the module's."""
    write(tmp_path, script="1 / 0\n")
    assert "runpy" in assert_same(tmp_path, "-m", "script").stderr


@pytest.mark.parametrize(
    "arguments", [("missing.py",), ("-m", "missing"), ("-m", "package"), ("empty",), ("-m", "one.two")]
)
def test_what_cannot_be_run_is_told_as_by_python(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A missing script or module, a package or folder without ``__main__``: python's message and exit code."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "package").mkdir()
    write(tmp_path / "package", __init__="")
    assert assert_same(tmp_path, *arguments).returncode in (1, 2)


def as_in_the_foreground() -> None:
    """Ctrl-C is heard: a shell has what it starts in its background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_script_exits_with_130(tmp_path: Path) -> None:
    """Ctrl-C prints python's traceback, and the shell sees 130."""
    write(tmp_path, script="import time\nprint('ready', flush=True)\ntime.sleep(30)\n")
    process = subprocess.Popen(
        [sys.executable, *RUN, "script.py"],
        cwd=tmp_path,
        env=clean_environment(**ENVIRONMENT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=as_in_the_foreground,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    first_frame = r'Traceback \(most recent call last\):\n  File "[^"]*script.py", line 3, in <module>\n'
    assert re.fullmatch(first_frame + r"(.*\n)*KeyboardInterrupt\n", errors)


PROCESSES = """
    import multiprocessing, pickle
    class Row:
        def __init__(self, value): self.value = value
    def double(row): return Row(2 * row.value)
    if __name__ == "__main__":
        print(pickle.loads(pickle.dumps(Row(3))).value)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.map(double, [Row(4)])[0].value)
"""


@pytest.mark.parametrize("arguments", [("script.py",), ("-m", "script")])
def test_classes_of_main_are_pickled_and_spawned(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """pickle finds ``__main__``'s classes, and a spawned process imports the script again."""
    write(tmp_path, script=PROCESSES)
    assert assert_same(tmp_path, *arguments).stdout == "3\n8\n"


def test_options_before_the_script_are_ours(tmp_path: Path) -> None:
    """``--simulate`` before the script patches for that Mac; after it, it is the script's."""
    write(tmp_path, script="import patcher, sys\nprint(patcher.report().machine, sys.argv[1:])\n")
    ours = call(*RUN, "--no-strict", "--simulate", "M1 8GB", "script.py", "--simulate", "x", cwd=tmp_path)
    machine = "Apple M1, 8 GB, macOS 15.5 (simulated, torch 2.14.1)"
    assert (ours.stdout, ours.returncode) == (f"{machine} ['--simulate', 'x']\n", 0)


def test_processes_of_the_script_simulate_the_same_mac(tmp_path: Path) -> None:
    """``--simulate`` reaches processes that the script starts, through the environment."""
    write(tmp_path, script="import subprocess, sys\nsubprocess.run([sys.executable, 'child.py'], check=True)\n")
    write(tmp_path, child="from patcher import patch_for_mac\nprint(patch_for_mac().report().machine)\n")
    assert "Apple M1, 8 GB" in call(*RUN, "--simulate", "M1 8GB", "script.py", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "Missing argument"), (("--lr", "1", "script.py"), "--lr"), (("--simulate", "M0", "s.py"), "no such Mac")],
)
def test_wrong_use_is_told_with_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """No script, an unknown option before it, an unknown Mac."""
    found = call(*RUN, *arguments, cwd=tmp_path)
    assert found.returncode == 2
    assert said in found.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac has something to patch")
def test_nothing_to_patch_is_told_on_demand(tmp_path: Path) -> None:
    """Where there is no mps device the script runs as it is; ``--verbose`` says so."""
    write(tmp_path, script="print('ran')\n")
    found = call(*RUN, "--verbose", "script.py", cwd=tmp_path)
    assert (found.stdout, found.returncode) == ("ran\n", 0)
    assert "nothing is patched: no mps device here" in found.stderr


@pytest.mark.slow
def test_an_unpatched_script_runs_on_the_simulated_mac(tmp_path: Path) -> None:
    """A script without the one line gets an mps device, and ``--verbose`` tells every change as it is applied."""
    write(tmp_path, script="import torch\nprint(torch.ones(2, device='mps').device)\n")
    found = call(*RUN, "--verbose", "--simulate", "1", "script.py", cwd=tmp_path)
    assert found.stdout == "mps:0\n", found.stderr
    assert "applied    torch.cuda:get_device_name" in found.stderr


@pytest.mark.slow
def test_an_unmodified_unsloth_script_finds_mps(tmp_path: Path) -> None:
    """``import unsloth`` as a CUDA script says it: the device type is mps, and ``"cuda"`` lands there."""
    write(tmp_path, script="import unsloth, torch\nprint(unsloth.DEVICE_TYPE, torch.ones(1).to('cuda').device)\n")
    found = call(*RUN, "--simulate", "1", "script.py", cwd=tmp_path)
    assert found.stdout.splitlines()[-1] == "mps mps:0", found.stderr
