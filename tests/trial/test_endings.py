"""However a script ends, there is a verdict, and the exit code, the output and the traceback are python's own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from patcher.macs.mac import parse
from patcher.trial import watch
from tests.process import clean_environment
from tests.trial.command import ENVIRONMENT, python, read, simulate, write


@pytest.mark.parametrize(
    ("body", "kind", "line"),
    [
        ("import sys; print(sys.argv, __name__, sys.path[0] == __import__('os').getcwd())", "finished", "finished"),
        pytest.param(
            "import sys; sys.exit('nothing to do')",
            "exit",
            "ended itself with exit code 1: nothing to do",
            marks=pytest.mark.slow,
        ),
        ("import os; print('x', flush=True); os._exit(7)", "exit", "ended itself with exit code 7"),
        (
            "def f(n):\n    1 / n\ntry:\n    f(0)\nexcept Exception as error:\n    raise KeyError(1) from error\n",
            "exception",
            "KeyError at script.py:6: 1",
        ),
        pytest.param(
            "import json\n\njson.loads('{')\n",
            "exception",
            "json.decoder.JSONDecodeError at script.py:3: Expecting",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "import atexit, sys; atexit.register(print, 'last'); sys.exit(3)",
            "exit",
            "ended itself with exit code 3",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["finished", "message", "_exit", "exception", "in a library", "atexit"],
)
def test_a_script_is_pythons_and_ends_in_a_verdict(tmp_path: Path, body: str, kind: str, line: str) -> None:
    """Output, traceback and exit code are plain python's; the verdict follows on stderr."""
    write(tmp_path, body)
    found, plain = simulate(tmp_path, "script.py", "--lr", "1"), python(tmp_path, "script.py", "--lr", "1")
    assert (found.stdout, found.stderr, found.code) == (plain.stdout, plain.stderr, plain.returncode)
    assert found.data["verdict"]["kind"] == kind
    assert found.data["verdict"]["line"].startswith(line)
    assert found.data["verdict"]["line"] in found.verdict
    assert f"(exit code {plain.returncode})" in found.verdict
    assert "the script did not import torch" in found.verdict


@pytest.mark.slow
def test_modules_standard_input_and_missing_scripts(tmp_path: Path) -> None:
    """``-m``, ``-`` and a script that is not there, as python has them."""
    write(tmp_path, "import sys; print(sys.argv[1:])", "part.py")
    assert simulate(tmp_path, "-m", "part", "-m").stdout == "['-m']\n"
    assert simulate(tmp_path, "-", stdin="print(__file__)").stdout == "<stdin>\n"
    missing = simulate(tmp_path, "missing.py")
    assert missing.code == 2 and "can't open file" in missing.stderr


@pytest.mark.parametrize(
    ("body", "name", "line"),
    [
        ("import ctypes\n\ndef f():\n    ctypes.string_at(0)\n\nf()\n", signal.SIGSEGV, " at script.py:4"),
        pytest.param("import os\nos.abort()\n", signal.SIGABRT, " at script.py:2", marks=pytest.mark.slow),
        ("import os\nos.kill(os.getpid(), 9)\n", signal.SIGKILL, ""),
    ],
)
def test_a_crash_has_a_verdict_with_its_place(tmp_path: Path, body: str, name: signal.Signals, line: str) -> None:
    """A segmentation fault, an abort and a kill: named, with the script's line where python knows it; 128 + signal."""
    write(tmp_path, body)
    found = simulate(tmp_path, "script.py")
    assert found.code == 128 + name
    assert found.data["verdict"]["line"] == f"killed by {name.name} ({signal.strsignal(name)}){line}"
    assert found.data["signal"] == name
    if name == signal.SIGKILL:
        assert re.search(r"this machine ran out of memory: it held \d+\.\d GiB", found.verdict)


def as_in_the_foreground() -> None:
    """Ctrl-C is heard: a shell has what it starts in its background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_command_reaches_the_script(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C prints python's traceback, and the verdict says where; after SIGTERM too there is one."""
    write(tmp_path, "import time\nprint('ready', flush=True)\ntime.sleep(30)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "patcher", "simulate", "--json", "trial.json", "script.py"],
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
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    found = read(tmp_path, process.returncode, output, errors)
    assert found.code == code
    if number == signal.SIGINT:
        assert found.stderr.endswith("KeyboardInterrupt\n")
        assert found.data["verdict"]["line"] == "interrupted at script.py:3"
    else:
        assert found.data["verdict"]["line"] == "killed by SIGTERM (Terminated)"


@pytest.mark.slow
def test_forked_children_leave_the_account_alone(tmp_path: Path) -> None:
    """What a child of the script raises, or leaves with, is not the script's."""
    write(
        tmp_path,
        """
        import os, sys
        for ending in (lambda: os._exit(5), lambda: sys.exit(6)):
            child = os.fork()
            if child == 0:
                ending()
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        """,
    )
    found = simulate(tmp_path, "script.py")
    assert found.stdout == "5\n6\n"
    assert (found.data["verdict"]["kind"], found.code) == ("finished", 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument"),
        (("--mac", "M0", "script.py"), "no such Mac"),
        (("--faults", "x", "s.py"), "no such"),
        (("--report", "absent/r.html", "s.py"), "mkdir -p absent"),
        (("--json", ".", "s.py"), "--json cannot be written"),
    ],
)
def test_wrong_use_is_told_with_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """No script, an unknown Mac or fault, no folder for the report: nothing is run, and there is no verdict."""
    done = python(tmp_path, "-m", "patcher", "simulate", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "verdict" not in done.stderr


def test_text_that_is_no_unicode_does_not_cost_the_report(tmp_path: Path) -> None:
    """A byte that is none in the script's name and in its message: told with backslashes."""
    name = os.fsdecode(b"\xff.py")
    write(tmp_path, "raise ValueError('\\udcfe')", name)
    found = simulate(tmp_path, "--report", "r.html", name)
    assert found.code == 1 and "ValueError" in found.data["verdict"]["line"]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert r"\udcff.py" in page and r"\udcfe" in page


def test_a_report_that_cannot_be_written_leaves_the_exit_code(tmp_path: Path) -> None:
    """The folder is gone when the script has ended: a line on stderr for each file."""
    (tmp_path / "out").mkdir()
    write(tmp_path, "import os, sys; os.rmdir('out'); sys.exit(3)")
    done = python(tmp_path, "-m", "patcher", "simulate", "--report", "out/r.html", "--json", "out/r.json", "script.py")
    assert done.returncode == 3
    assert re.findall(r"  (\w+) +not written: .*No such file", done.stderr) == ["json", "report"]
    assert "Traceback" not in done.stderr


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_ctrl_c_when_the_script_has_ended_does_not_cost_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that nobody has taken when signals are let through again was for the script; nothing is left over."""
    wait = watch._wait

    def then_interrupted(process: int) -> tuple[int, int]:
        found = wait(process)
        signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(watch, "_wait", then_interrupted)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    try:
        end = watch.run_apart(parse("M1 8GB"), lambda: os._exit(4), lambda: None, patched=False)
    except KeyboardInterrupt:
        pytest.fail("the verdict is lost")
    assert end.code == 4
    assert list(tmp_path.iterdir()) == []
