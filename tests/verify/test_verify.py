"""``verify_apple.py``: passes on a right machine, and fails where something is wrong, saying what to do."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from rich.console import Console

import verify_apple
from patcher.macs.machine import detect
from patcher.verify import parent
from patcher.verify.check import Check, Failed, Result, Situation, Skipped, Status
from patcher.verify.compare import assert_close, tolerance
from patcher.verify.output import Lines, passed
from tests.process import ROOT, run_module, run_python

pytestmark = pytest.mark.slow

REPORT = {"machine", "simulated", "python", "patcher", "platform", "passed", "counts", "seconds", "checks"}
LINE = {"section", "name", "status", "detail", "do", "seconds"}


def verify(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``python verify_apple.py ARGUMENTS`` in a process of its own."""
    return run_python(ROOT / "verify_apple.py", *arguments, timeout=900, check=False, **variables)


@pytest.fixture
def no_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks for a simulated Mac."""
    monkeypatch.delenv("UNSLOTH_SIMULATE_MAC", raising=False)


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
def test_linux_is_told_how_to_simulate_a_mac(no_mac: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, nothing on stdout, and the command to run."""
    assert verify_apple.main(["--json", "--skip-downloads"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "this is no Mac" in printed.err and "--simulate 'M3 Max 36GB'" in printed.err


def test_wrong_arguments_give_2(no_mac: None, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown Mac and an unknown option."""
    assert verify_apple.main(["--simulate", "M0"]) == 2
    assert "M3 Max" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        verify_apple.main(["--quick"])
    assert left.value.code == 2


def test_json_has_the_promised_keys_and_nothing_else_is_on_stdout() -> None:
    """Machine, verdict, counts and every check with its keys; the lines are on stderr."""
    found = verify("--simulate", "M1 8GB", "--json", "--group", "system", "--group", "device")
    assert found.returncode == 0, found.stderr
    data = json.loads(found.stdout)
    assert set(data) == REPORT
    assert all(set(line) == LINE for line in data["checks"])
    assert {line["section"] for line in data["checks"]} == {"system", "torch and mps"}
    assert data["passed"] and data["simulated"] and data["counts"]["FAIL"] == 0
    assert data["machine"].startswith("Apple M1, 8 GB")
    assert "float64 refused" in found.stderr


def sitecustomize(folder: Path, body: str) -> dict[str, str]:
    """Variables under which every Python process runs ``body`` first."""
    (folder / "sitecustomize.py").write_text(textwrap.dedent(body))
    return {"PYTHONPATH": str(folder)}


def test_a_wrong_kernel_fails_and_says_what_to_do(tmp_path: Path) -> None:
    """SiLU with a slope that is off by a thousandth: exit code 1, its lines say FAIL and name the file; others pass."""
    wrong = """
        from patcher.engine.imports import Finder
        def spoil(module):
            right = module.silu_and_slope
            module.silu_and_slope = lambda e: (right(e)[0], right(e)[1] * 1.001)
        finder = Finder()
        finder.after("patcher.ops.swiglu", spoil)
        finder.install()
    """
    found = verify("--simulate", "--group", "kernels", **sitecustomize(tmp_path, wrong))
    assert found.returncode == 1, found.stdout
    lines = found.stdout.splitlines()
    failed = [number for number, line in enumerate(lines) if line.startswith("  FAIL")]
    assert [lines[number].split("  ")[1].removeprefix("FAIL ") for number in failed] == [
        "SwiGLU",
        "gated unit in place",
    ]
    assert "gradient of e is off by" in lines[failed[0]]
    assert lines[failed[0] + 1].strip().startswith("do: patcher/ops/swiglu.py is wrong on this machine")
    assert "2 FAIL" in lines[-1]


def test_a_machine_that_cannot_simulate_is_told_once(tmp_path: Path) -> None:
    """Without a compiler: exit code 1, one failure with the simulator's own message, and no further groups."""
    found = verify("--simulate", "--json", PATCHER_CACHE=str(tmp_path), CXX=str(tmp_path / "no-compiler"), PATH="")
    assert found.returncode == 1
    failed = [line for line in json.loads(found.stdout)["checks"] if line["status"] == "FAIL"]
    assert [line["name"] for line in failed] == ["patch_for_mac()"]
    assert "compiler" in failed[0]["detail"] and failed[0]["do"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [("os.abort()", "SIGABRT"), ("raise ValueError('bad')", "ValueError: bad"), ("time.sleep(60)", "still running")],
)
def test_a_check_that_takes_its_process_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, expected: str
) -> None:
    """An abort, a crash or a hang fails the check that was running, and the next group still runs."""
    begin = json.dumps({"begin": {"section": "kernels", "name": "SwiGLU"}})
    result = json.dumps({"result": Result("system", "chip", Status.OK).to_dict()})
    bodies = {"kernels": f"print({begin!r}, flush=True); {body}", "system": f"print({result!r})"}

    def start(plan: parent.Plan, group: str, errors: io.TextIOBase) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", f"import os, time; {bodies[group]}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)

    monkeypatch.setattr(parent, "_start", start)
    monkeypatch.setitem(parent.SECONDS, "kernels", 1)
    found = list(parent.run(parent.Plan(tmp_path, None, False, ("kernels", "system")), lambda *_: None))
    assert [(result.name, result.status) for result in found] == [("SwiGLU", Status.FAIL), ("chip", Status.OK)]
    assert expected in found[0].detail and found[0].do
    assert not passed(found)


def outcome(body: object, tmp_path: Path, *, full: bool = False, needs: tuple[str, ...] = ()) -> Result:
    check = Check("section", "name", body, do="do this", needs=needs)  # type: ignore[arg-type]
    return check.run(Situation(detect("1"), full, tmp_path))


def test_how_a_check_ends(tmp_path: Path) -> None:
    """What is returned is ok, Skipped is skip, anything else that is raised is FAIL with what to do."""

    def raises(error: Exception) -> object:
        def body(here: Situation) -> str:
            raise error

        return body

    assert outcome(lambda here: "fine", tmp_path).status is Status.OK
    assert outcome(raises(Skipped("not here")), tmp_path).status is Status.SKIP
    failed = outcome(raises(Failed("wrong")), tmp_path)
    assert (failed.status, failed.detail, failed.do) == (Status.FAIL, "wrong", "do this")
    assert outcome(raises(KeyError("x")), tmp_path).detail == "KeyError: 'x'"


def test_a_missing_library_is_skipped_unless_everything_is_asked_for(tmp_path: Path) -> None:
    """``--full`` is for a machine on which everything is to work."""
    assert outcome(lambda here: "", tmp_path, needs=("no_such_library",)).status is Status.SKIP
    assert outcome(lambda here: "", tmp_path, needs=("no_such_library",), full=True).status is Status.FAIL


def test_what_counts_as_rounding() -> None:
    """A difference within the tolerance passes; beyond it, NaN, infinity and another shape fail."""
    exact = torch.tensor([1.0, -4.0], dtype=torch.float64)
    allowed = tolerance(torch.float32, length=100)
    assert assert_close("x", (exact * (1 + allowed / 2)).float(), exact, allowed) <= allowed
    for wrong in (exact * (1 + 2 * allowed), exact * float("nan"), exact / 0, exact[:1]):
        with pytest.raises(Failed, match="x "):
            assert_close("x ", wrong, exact, allowed)
    assert tolerance(torch.bfloat16, length=1) > tolerance(torch.float16, length=1) > tolerance(torch.float32, length=1)


def test_every_op_is_checked() -> None:
    """Each file of patcher/ops has a kernel check, so that a new op cannot be forgotten."""
    from patcher.verify.kernels import KERNELS

    internal = {"dense", "row_chunks", "split_sum", "__init__"}
    internal |= {"blocked_attention", "philox", "visible_keys", "dense_attention", "drawn_seed"}  # parts of attention
    internal |= {"flash_attention", "scaled_dot_product_attention"}  # ways to call it
    internal |= {"logit_tiles", "softmax_tile", "runs"}  # parts of the losses of a head, and no arithmetic
    files = {path.stem for path in (ROOT / "patcher" / "ops").glob("*.py")} - internal
    assert {kernel.op for kernel in KERNELS} == files


def test_lines_for_people() -> None:
    """One line per check under its section, what to do below a failure, and the sum; no colours in a pipe."""
    file = io.StringIO()
    lines = Lines(Console(file=file))
    results = [Result("a", "one", Status.OK, "fine"), Result("a", "two", Status.FAIL, "bad\nworse", "repair it")]
    for result in results:
        lines.begin(result.section, result.name)
        lines.show(result)
    lines.end(results, 2.0)
    shown = file.getvalue().splitlines()
    assert [line.split() for line in shown[1:6]] == [
        ["a"],
        ["ok", "one", "fine"],
        ["FAIL", "two", "bad"],
        ["worse"],
        ["do:", "repair", "it"],
    ]
    assert shown[-1].startswith("1 ok, 1 FAIL, 0 skip in 2 s: something is wrong")
    assert "\x1b" not in file.getvalue()


@pytest.mark.slow
def test_every_probe_notices_its_fault(tmp_path: Path) -> None:
    """With the fault that it looks for a probe fails; without it, or with our guard against it, it passes."""
    run_module("tests.verify.faults", tmp_path, timeout=300)
    outcomes = json.loads((tmp_path / "outcomes.json").read_text())

    def ended(group: str, status: str) -> set[str]:
        return {name for name, (found, _) in outcomes[group].items() if found == status}

    from patcher.simulator.faults import FAULTS
    from patcher.verify.hazards import CHECKS

    inherent = {fault.probe for fault in FAULTS.values() if fault.inherent and fault.probe is not None}
    assert ended("wrong", "FAIL") == outcomes["wrong"].keys()
    assert ended("planted", "FAIL") == outcomes["planted"].keys()
    assert ended("guarded", "ok") == outcomes["guarded"].keys() and len(outcomes["guarded"]) >= 10
    assert ended("right", "ok") == {check.name for check in CHECKS} - inherent
    assert ended("right", "FAIL") == inherent
    assert ended("too large", "skip") == outcomes["too large"].keys() and len(outcomes["too large"]) == 2
    assert outcomes["too large"]["lookups beyond 2^31 elements"][1] == (
        "takes 4.0 GiB, more than half of this machine's 2 GiB"
    )


@pytest.mark.slow
def test_a_simulated_mac_passes_everything() -> None:
    """Every section, Unsloth's training included, in a fresh process: exit code 0."""
    found = verify("--simulate", "--json")
    data = json.loads(found.stdout)
    assert [line for line in data["checks"] if line["status"] == "FAIL"] == []
    assert found.returncode == 0
    sections = ["system", "torch and mps", "kernels", "known hazards", "training", "generation", "imports", "patches"]
    assert list(dict.fromkeys(line["section"] for line in data["checks"])) == [*sections, "unsloth"]
    shaders = {f"variants of {path.stem}" for path in (ROOT / "patcher" / "ops" / "metal").glob("*.metal")}
    assert {line["name"] for line in data["checks"] if line["status"] == "skip"} == {"Python", *shaders}
