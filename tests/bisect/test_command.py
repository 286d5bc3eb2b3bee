"""python -m patcher bisect on small programs that look at variables which are changes, so that nothing is imported."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from patcher import environment
from patcher.bisect.runs import Program
from tests.process import ROOT, clean_environment, run_python

pytestmark = pytest.mark.slow

VARIABLES = {"TOKENIZERS_PARALLELISM": "false", "PYTORCH_ENABLE_MPS_FALLBACK": "1", "UNSLOTH_FORCE_GPU_PATH": "1"}
LOOK = (
    f"import os, sys, time\nset = {{name for name, value in {VARIABLES!r}.items() if os.environ.get(name) == value}}\n"
)
"""After it ``set`` holds those of the variables that the patches have set."""

FEW = "torch*,aten*,trans*,trl*,unsloth.*,unsloth_zoo.*,module*,bits*,acc*,shim*,UNSLOTH_[CDS]*,PYTORCH_MPS*,TORCH*"
"""Left out from the start, since each run costs half a second: all but the three variables."""


def bisect(folder: Path, program: str, *options: str, arguments: tuple[str, ...] = (), check: int = 0) -> str:
    """Its report, of a program with these lines; the exit code is as said."""
    (folder / "program.py").write_text(LOOK + program)
    given = {"UNSLOTH_SIMULATE_MAC": "1", "PATCHER_WITHOUT": FEW, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    command = ["-m", "patcher", "bisect", *options, str(folder / "program.py"), *arguments]
    done = run_python(*command, cwd=folder, check=False, **given)
    assert done.returncode == check, f"{done.stdout}\n{done.stderr}"
    progress = done.stderr.splitlines()
    assert check == 2 or all(re.fullmatch(r"run \d+: \d+ of 3 changes in place: .+ \(\d+\.\d s\)", p) for p in progress)
    return done.stdout if check != 2 else done.stderr


def test_the_report_names_the_changes_and_nothing_of_the_user(tmp_path: Path) -> None:
    """Two variables together make it fail; the report goes to the screen and to the file."""
    program = (
        "if {'TOKENIZERS_PARALLELISM', 'UNSLOTH_FORCE_GPU_PATH'} <= set:\n"
        "    print('reading', os.path.abspath(sys.argv[1]))\n"
        "    raise LookupError('both')\n"
    )
    printed = bisect(tmp_path, program, "--report", "found.txt", arguments=(str(tmp_path / "data.json"),))
    assert printed == (tmp_path / "found.txt").read_text()
    assert printed.startswith("patcher bisect: these changes make it fail\n  $TOKENIZERS_PARALLELISM\n")
    assert "  $UNSLOTH_FORCE_GPU_PATH\n" in printed and "MPS_FALLBACK" not in printed
    assert "PATCHER_WITHOUT='$TOKENIZERS_PARALLELISM,$UNSLOTH_FORCE_GPU_PATH'\n" in printed
    assert "without them:   passes\n" in printed and "as it is:       fails with LookupError\n" in printed
    assert "machine:        Apple M3 Max, 36 GB" in printed and re.search(
        r"versions: .*patch-for-mac \d.* torch \d", printed
    )
    assert "  LookupError: both\n" in printed and "reading data.json" in printed
    assert str(tmp_path) not in printed


def test_the_output_of_a_command_decides_where_one_is_given(tmp_path: Path) -> None:
    """The program passes, and writes something else with one change."""
    program = "open('out.txt', 'w').write('wrong' if 'PYTORCH_ENABLE_MPS_FALLBACK' in set else 'right')\n"
    printed = bisect(tmp_path, program, "--command", "cat out.txt")
    assert "  $PYTORCH_ENABLE_MPS_FALLBACK\n" in printed and "TOKENIZERS_PARALLELISM" not in printed
    assert "without them:   passes, and the command prints 'right'\n" in printed
    assert "as it is:       passes, and the command prints 'wrong'\n" in printed


def test_a_program_that_fails_by_itself_accuses_nobody(tmp_path: Path) -> None:
    """Exit code 1, and after four runs."""
    printed = bisect(tmp_path, "sys.exit(3)\n", check=1)
    assert "no change is the reason" in printed and "runs:           4\n" in printed


def test_what_cannot_be_run_is_said_before_the_first_run(tmp_path: Path) -> None:
    """A report that could not be written would be lost after an hour."""
    message = bisect(tmp_path, "", "--report", "no/folder/found.txt", check=2)
    assert "--report cannot be written" in message and "mkdir -p no/folder" in message


def test_a_run_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    """A search must not leave trainings behind that hold the memory."""
    script = tmp_path / "slow.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('child', 'w').write(str(child.pid))\ntime.sleep(60)\n"
    )
    with contextlib.chdir(tmp_path), environment.temporarily({"PYTHONPATH": str(ROOT), "UNSLOTH_SIMULATE_MAC": "1"}):
        outcome = Program([str(script)], timeout=4).run([])
    assert (outcome.kind, outcome.passed) == ("ran into the time limit", False)
    assert _ends(int((tmp_path / "child").read_text()))


def test_ctrl_c_ends_the_run_and_says_how_far_it_came(tmp_path: Path) -> None:
    """Exit code 130; the run in progress does not go on alone."""
    script = tmp_path / "slow.py"
    script.write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "patcher", "bisect", str(script)],
        cwd=tmp_path,
        env=clean_environment(UNSLOTH_SIMULATE_MAC="1", PYTHONPATH=str(ROOT)),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    pid = tmp_path / "pid"
    deadline = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None and "interrupted after 1 runs; nothing is known yet" in process.stderr.read()
    assert process.wait() == 130
    assert _ends(int(pid.read_text()))


def _ends(pid: int) -> bool:
    """Whether a process that was killed is gone soon: the kernel takes its memory back while others go on."""
    for _ in range(100):
        if not _is_alive(pid):
            return True
        time.sleep(0.1)
    return False


def _is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


TABLE = """
import torch
try:
    name = torch.cuda.get_device_name()
except Exception:
    name = "cpu"
batch = {"cpu": 1, "NVIDIA A100-SXM4-40GB": 16, "NVIDIA L4": 8}[name]
print("batch size", batch)
"""


@pytest.mark.slow
def test_a_real_script(tmp_path: Path) -> None:
    """A script that knows NVIDIA's cards only: what answers for the Mac is found among the changes of torch.cuda.

    torch's own get_device_name asks get_device_properties (torch 2.13.0), which is changed too: there are two reasons.
    """
    (tmp_path / "train.py").write_text(TABLE)
    left_out = (
        "transformers*,trl*,unsloth*,module*,bitsandbytes*,accelerate*,aten*,torch:*,torch.mps:*,torch.amp*,shim*"
    )
    given = {"UNSLOTH_SIMULATE_MAC": "1", "PATCHER_WITHOUT": left_out, "PYTHONPATH": str(ROOT)}
    done = run_python("-m", "patcher", "bisect", "train.py", cwd=tmp_path, **given)
    found = re.findall(r"^  (torch\.\S+)$", done.stdout, flags=re.MULTILINE)
    assert set(found) == {"torch.cuda:get_device_name", "torch.cuda:get_device_properties"}
    assert "without them:   passes" in done.stdout and "KeyError: 'Apple M3 Max'" in done.stdout
