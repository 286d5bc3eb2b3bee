"""Estimated times by hand arithmetic, their assumptions in words, and the tables that people see."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from patcher.macs.mac import every_mac, parse
from patcher.simulator.estimate import ERROR, GRAPH_OPS, MATRIX_OPS, Rates, estimate
from patcher.simulator.meter_report import as_text, duration
from patcher.simulator.usage import Copies, Counts, Row, Step, Usage

MAC = replace(parse("M3 Max 48GB"), bandwidth=100e9, tflops_fp32=10e12, tflops_fp16=10e12)
RATES = Rates(bandwidth=0.5, matrix=0.8, vector=0.25, gap=2e-6, kernel_launch=3e-6, graph_launch=30e-6, wait=100e-6)
"""Round numbers: 50 GB/s, 8 TFLOPS in matrix products, 2.5 elsewhere."""


def usage_of(*rows: Row, steps: int = 0, waits: int = 0, copied: int = 0, step_rows: tuple[Row, ...] = ()) -> Usage:
    total = sum((row.counts for row in rows), Counts())
    return Usage(
        dispatches=total.dispatches,
        bytes_read=total.bytes_read,
        bytes_written=total.bytes_written,
        flops=total.flops,
        peak_bytes=10 * 2**20,
        reserved_bytes=32 * 2**20,
        synchronizations=waits,
        copies=Copies(to_device=1, to_device_bytes=copied),
        rows=rows,
        step_rows=step_rows,
        steps=tuple(Step(i + 1, 1, Counts(), 0, 2, 0) for i in range(steps)),
        timeline=(),
    )


def row(op: str, counts: Counts, arithmetic: str = "float32", module: str = "Model") -> Row:
    return Row(op, module, "forward", arithmetic, counts)


ADD = row("aten::add.Tensor", Counts(1000, 300_000_000, 200_000_000, 50_000_000))
"""500 MB at 50 GB/s: 10 ms; 50 MFLOP at 2.5 TFLOPS: 20 us; 2 ms of gaps; 3 ms of the host."""
MM = row("aten::mm", Counts(10, 400_000, 100_000, 80_000_000_000), module="Model.head")
"""80 GFLOP at 8 TFLOPS: 10 ms; 500 kB: 10 us; 20 us of gaps; 300 us of the host."""


def test_a_kernel_takes_the_longer_of_memory_and_arithmetic() -> None:
    """And the gap on top; where the host is faster it does not count."""
    result = estimate(usage_of(ADD, MM), MAC, RATES)
    assert result.gpu_seconds == pytest.approx(12e-3 + 10.02e-3)
    assert result.host_seconds == pytest.approx(3.3e-3)
    assert result.seconds == result.gpu_seconds
    assert result.limits == pytest.approx({"memory": 10e-3, "arithmetic": 10e-3, "gaps": 2.02e-3})
    assert result.by_op == pytest.approx({"aten::add.Tensor": 12e-3, "aten::mm": 10.02e-3})
    assert list(result.by_module) == ["Model", "Model.head"]
    assert result.steps_per_second is None


def test_a_slow_host_sets_the_pace_and_waiting_comes_on_top() -> None:
    """Tiny kernels cost what it takes to launch them; through MPSGraph more than otherwise."""
    tiny = row("aten::add_.Tensor", Counts(1000, 4000, 4000, 1000))
    graph = row("aten::_softmax", Counts(1000, 4000, 4000, 1000))
    result = estimate(usage_of(tiny, graph, waits=5, copied=25_000_000), MAC, RATES)
    assert result.seconds == pytest.approx(3e-3 + 30e-3 + 5 * 100e-6 + 2 * 25e6 / 50e9)


@pytest.mark.parametrize(
    ("mac", "arithmetic", "share"),
    [
        ("M1 8GB", "float32", 0.80),
        ("M1 8GB", "float16", 0.80),
        ("M1 8GB", "bfloat16", 0.43),
        ("M2 8GB", "bfloat16", 0.80),
        ("M5 16GB", "float32", 0.80),
        ("M5 16GB", "bfloat16", 4 * 0.50),
    ],
)
def test_matrix_products_by_dtype(mac: str, arithmetic: str, share: float) -> None:
    """M1 has no bfloat16, M5 has matrix units for half precision."""
    profile = parse(mac)
    big = row("aten::bmm", Counts(1, 1, 1, 10**15), arithmetic)
    expected = 10**15 / (profile.tflops_fp32 * share)
    assert estimate(usage_of(big), profile).limits["arithmetic"] == pytest.approx(expected)


def test_steps_without_start_up() -> None:
    """The time of a step is that of the steps after the first, each with its share of waiting."""
    three = estimate(usage_of(ADD, MM, MM, steps=3, waits=100, step_rows=(MM,)), MAC, RATES)
    assert three.step_seconds == pytest.approx((10.02e-3 + 2 * 2 * 100e-6) / 2)
    assert three.steps_per_second == pytest.approx(1 / (three.step_seconds or 0))
    one = estimate(usage_of(ADD, MM, steps=1), MAC, RATES)
    assert one.step_seconds == one.seconds


def test_assumptions_are_said_with_values_and_sources() -> None:
    """Every rate that counts on this Mac has a line with its value; so have the Mac's figures and the error."""
    lines = estimate(usage_of(ADD), parse("M1 8GB")).assumptions
    text = "\n".join(lines)
    for words in (
        "68.25 GB/s",
        "2.62 TFLOPS",
        "80% of the memory bandwidth",
        "43% in bfloat16",
        "2.5 us between",
        "170 us",
    ):
        assert words in text, words
    assert lines[-1] == ERROR and "%" in ERROR
    assert "github.com" in text and "matrix units" not in text
    newer = "\n".join(estimate(usage_of(ADD), parse("M5 16GB")).assumptions)
    assert "matrix units" in newer and "43%" not in newer and "an estimate among these" in newer


def test_every_mac_has_an_estimate() -> None:
    """More bandwidth, more speed: the time of a memory-bound run follows from the profile."""
    for mac in every_mac():
        assert estimate(usage_of(ADD), mac).limits["memory"] == pytest.approx(5e8 / (mac.bandwidth * 0.8))
    assert MATRIX_OPS <= GRAPH_OPS


def test_estimate_as_json() -> None:
    """What the verdict and its page read."""
    found = json.loads(json.dumps(estimate(usage_of(ADD, steps=2), "M2 Pro 32GB").to_dict()))
    assert {"mac", "seconds", "steps_per_second", "assumptions", "limits", "by_op", "by_module"} <= set(found)


def test_tables() -> None:
    """Totals, operators, modules with their shares of the time, and every assumption; long lists end in a sum."""
    usage = usage_of(ADD, MM, *(row(f"aten::op{i}", Counts(1, 10, 10, 1), module="") for i in range(20)))
    text = as_text(usage, estimate(usage, MAC, RATES))
    for words in ("aten::mm", "80 G", "Model.head", "(outside of modules)", "(10 more)", "32 MiB reserved", "assuming"):
        assert words in text, words
    assert "expected" not in as_text(usage)
    assert [duration(0.00123), duration(150)] == ["1.23 ms", "2.5 min"]
