"""`triton.testing` of the shim: tables and comparisons as real Triton's, times of the mps device."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.process import run_python

pytestmark = pytest.mark.slow

SHIM = """
from patcher.engine.imports import Finder
from patcher.changes import changes_of
finder = Finder()
finder.shim(changes_of("triton.shim")[0])
finder.install()
"""

TABLES = """
import json, sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

drawn = ModuleType("matplotlib.pyplot")
axes = MagicMock()
drawn.figure = drawn.show = drawn.savefig = drawn.close = MagicMock()
drawn.subplot, drawn.subplots = lambda: axes, lambda: (MagicMock(), axes)
sys.modules |= {"matplotlib": ModuleType("matplotlib"), "matplotlib.pyplot": drawn}
sys.modules["matplotlib"].pyplot = drawn
import numpy, torch
import triton

one = triton.testing.Benchmark(
    x_names=["M", "N"], x_vals=[2**i for i in range(3)] + [(5, 7)], line_arg="by", line_vals=["a", "b"],
    line_names=["A", "B"], styles=[("blue", "-"), ("red", "--")], ylabel="GB/s", plot_name="one", args={"K": 3},
    x_log=True)
two = triton.testing.Benchmark(["M"], [1, 2], "by", ["a", "b"], ["A", "B"], "two", {"N": 1, "K": 2}, "size", "ms")

def measured(M, N, K, by, more=0):
    value = (M + N / 3) * K + (by == "b") + more
    return value if by == "a" else (value, value - 1, value + 1)

folder = Path(sys.argv[1])
if not triton.__version__.endswith("patcher"):
    folder.mkdir()
mark = triton.testing.perf_report([one, two])(measured)
found = mark.run(print_data=True, return_df=True, save_path=str(folder), diff_col=True, more=4)
triton.testing.perf_report(two)(measured).run(print_data=True, diff_col=True, save_precision=2)
wrong = triton.testing.Benchmark(["M", "N"], [(1, 2, 3)], "by", ["a"], ["A"], "three", {"K": 3})
try:
    triton.testing.perf_report(wrong)(measured).run()
except ValueError as error:
    print(error)


def close(*arguments, **options):
    try:
        triton.testing.assert_close(*arguments, **options)
        return True
    except AssertionError as error:
        return "said" in str(error)


x = torch.tensor([1.0, float("nan"), 3.0])
answers = [
    close(x, x + 9e-3), close(x, x + 2e-2, err_msg="said"), close(x.bfloat16(), x.bfloat16()),
    close(x, 1.05 * x, rtol=0.06), close(x.half(), x, atol=lambda dtype: 1.0 if dtype is torch.float16 else 0.0),
    close([1, 2], [1, 2]), close(1.0, 1.005), close(1.0, 2.0, err_msg="said"), close(x.numpy(), x.requires_grad_()),
    close(numpy.ones((2, 1)), 1.0), close(float("nan"), float("nan"), err_msg="said"), close([1.0], [[1.0]]),
]
called = [[name, [str(list(a)) if hasattr(a, "__len__") else str(a) for a in args], sorted(options)]
          for name, args, options in axes.method_calls]
files = {file.name: file.read_text() for file in sorted(folder.glob("*.[ch]*"))}
print(json.dumps({"answers": answers, "called": called, "files": files, "tables": [t.to_json() for t in found]}))
"""


def test_tables_and_comparisons_are_those_of_real_triton(tmp_path: Path) -> None:
    """The same script prints, writes and draws the same with Triton 3.9 and with the shim.

    Triton also draws the last table, which nobody asks to see or keep.
    """
    real = run_python("-c", TABLES, str(tmp_path / "real"), PYTHONPATH=str(Path(sys.prefix) / "oracle"))
    ours = run_python("-c", SHIM + TABLES, str(tmp_path / "new" / "ours"))
    expected, found = (run.stdout.splitlines() for run in (real, ours))
    assert found[:-1] == expected[:-1]
    theirs, our = (json.loads(lines[-1]) for lines in (expected, found))
    assert our["answers"] == theirs["answers"] and our["files"] == theirs["files"] and our["tables"] == theirs["tables"]
    our_calls, their_calls = ([_without_style(call) for call in side["called"]] for side in (our, theirs))
    assert our_calls == their_calls[: len(our_calls)] and len(our_calls) == 16
    assert set(our["files"]) == {"one.csv", "two.csv", "results.html"}


def _without_style(call: list[Any]) -> list[Any]:
    """A call on the axes; a line's style has two names."""
    name, arguments, options = call
    return [name, arguments, ["ls" if option == "linestyle" else option for option in options]]


TIMES = """
from patcher import patch_for_mac
patch_for_mac()
import pytest, torch, triton, triton.language as tl
from triton.testing import do_bench, do_bench_cudagraph

@triton.jit
def add(x, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(x + at, tl.load(x + at) + 1)

x, w = torch.zeros(256, device="cuda"), torch.ones(3, device="cuda", requires_grad=True)
for bench in (do_bench, do_bench_cudagraph):
    x.zero_()
    times = bench(lambda: add[(1,)](x, 256), rep=2, return_mode="all")
    assert times and all(isinstance(time, float) and time >= 0 for time in times), times
    assert x.min().item() >= 1 + 5 + len(times) and x.min() == x.max(), (x.min(), len(times))
    low, middle, high = bench(lambda: add[(1,)](x, 256), rep=2, quantiles=[0.2, 0.5, 0.8])
    assert 0 <= low <= middle <= high
    assert isinstance(bench(lambda: add[(1,)](x, 256), rep=1, quantiles=[0.5]), float)
    assert isinstance(bench(lambda: add[(1,)](x, 256), rep=1), float)
    bench(lambda: (2 * w).sum().backward(), rep=1, grad_to_none=[w])
    assert w.grad.tolist() == [2, 2, 2], w.grad
    before = x.clone()
    for wrong in ({"return_mode": "best"}, {"quantiles": [2]}):
        with pytest.raises(ValueError, match="best|0 to 1"):
            bench(lambda: add[(1,)](x, 256), **wrong)
    assert torch.equal(x, before)
print("TIMED")
"""


def test_times_are_those_of_mps(tmp_path: Path) -> None:
    """Every run counts once, gradients are those of one run, and what is wrong is said before anything runs."""
    script = tmp_path / "script.py"
    script.write_text(TIMES)
    assert "TIMED" in run_python("-m", "patcher", "run", "--simulate", "1", str(script)).stdout


def test_quantiles_are_those_of_torch() -> None:
    """Between two times, as the line through them has it."""
    code = (
        SHIM
        + """
import json, sys, torch
from triton.testing import _summary
times = torch.rand(17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
asked = [0.0, 0.1, 0.37, 0.5, 0.999, 1.0]
ours = torch.tensor(_summary(times.tolist(), asked, ""), dtype=torch.float64)
torch.testing.assert_close(ours, times.quantile(torch.tensor(asked, dtype=torch.float64)), rtol=1e-15, atol=0)
assert _summary([3.0, 1.0, 5.0, 2.0], None, "median") == 2.5 and _summary([3.0, 1.0], None, "all") == [3.0, 1.0]
assert [_summary([3.0, 1.0], None, mode) for mode in ("min", "max", "mean")] == [1.0, 3.0, 2.0]
print("SAME")
"""
    )
    assert "SAME" in run_python("-c", code).stdout


def test_without_mps_nothing_is_measured() -> None:
    """As Triton says without a GPU."""
    code = (
        SHIM
        + """
import triton
for bench in (triton.testing.do_bench, triton.testing.do_bench_cudagraph):
    try:
        bench(lambda: print("RAN"))
    except RuntimeError as error:
        print(error)
"""
    )
    said = run_python("-c", code).stdout
    assert said.count("0 active Triton drivers") == 2 and "RAN" not in said
