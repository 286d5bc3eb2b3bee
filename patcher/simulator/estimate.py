"""How long a run would take on a Mac: a roofline over what the meter has counted. Imports no torch.

Each kernel takes the longer of two times, that of moving its bytes and that of its arithmetic, and the gap until the
next one starts. A host that cannot launch kernels as fast as the GPU finishes them sets the pace instead. Waiting and
copies between host and device come on top.

What is assumed is in `Rates`, each value with its source, and is printed with every estimate; how far estimates are
from published measurements is in docs/meter.md and in `ERROR`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from patcher.macs.mac import MacProfile, parse
from patcher.simulator.usage import Row, Usage

GIGA, MICRO = 1e9, 1e-6

ERROR = (
    "against published measurements: matrix products within 10%, a 7B model's prompt and decoding -14% to +15%,"
    " training +25% to +77% (so much slower was the Mac), kernels below a millisecond up to +215%; see docs/meter.md"
)
"""The error against published figures, in words; docs/meter.md has the table, from benchmarks/bench_estimate.py."""

MATRIX_OPS = frozenset(
    {
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "addbmm",
        "linear",
        "linear_backward",
        "_addmm_activation",
        "convolution_overrideable",
        "convolution_backward_overrideable",
        "_scaled_dot_product_attention_math_for_mps",
    }
)
"""Operators whose FLOPs are multiply-adds of matrices."""

GRAPH_OPS = MATRIX_OPS | frozenset(
    {
        "_softmax",
        "_softmax_backward_data",
        "_log_softmax",
        "_log_softmax_backward_data",
        "nll_loss_forward",
        "nll_loss_backward",
        "embedding_dense_backward",
        "gather",
        "scatter",
        "scatter_add",
        "sort",
        "topk",
        "addmv",
        "addr",
        "native_batch_norm",
        "native_batch_norm_backward",
        "native_group_norm",
        "normal",
        "uniform",
        "bernoulli",
    }
)
"""Operators that torch 2.13 runs through MPSGraph, which costs the host more than a kernel of its own."""


@dataclass(frozen=True)
class Rates:
    """What torch reaches on mps. Shares are of a Mac's peak; see `_EXPLAINED` for where they come from."""

    bandwidth: float = 0.80
    matrix: float = 0.80
    matrix_bfloat16_m1: float = 0.43
    matrix_units_m5: float = 0.50
    vector: float = 0.50
    gap: float = 2.5 * MICRO
    kernel_launch: float = 4 * MICRO
    graph_launch: float = 15 * MICRO
    wait: float = 170 * MICRO


_EXPLAINED: dict[str, str] = {
    "bandwidth": "{:.0%} of the memory bandwidth (torch.cat of 1 GB: 320 of 400 GB/s on M3 Max, 58 of 68 on M1,"
    " github.com/TristanBilot/mlx-benchmark)",
    "matrix": "{:.0%} of the peak rate in matrix products (torch: 4.3 of 5.3 TFLOPS on M1 Pro, 11.5 of 14.1 on M3 Max,"
    " 13.8 of 16.2 on M4 Max in fp32; github.com/zzc0721/torch-performance-test-data issues 191, 33, 65)",
    "matrix_bfloat16_m1": "{:.0%} in bfloat16 on M1, which has no such arithmetic (2.3 of 5.3 TFLOPS on M1 Pro, same"
    " source, issue 191)",
    "matrix_units_m5": "{:.0%} of the rate of M5's matrix units in half precision (no measurement with torch found)",
    "vector": "{:.0%} of the peak rate in all other arithmetic (not measured; such kernels wait for memory)",
    "gap": "{:.3g} us between two kernels on the GPU (3 us: github.com/pytorch/pytorch issue 82707)",
    "kernel_launch": "{:.3g} us for the host to launch a Metal kernel (5 us on M1 Pro, pytorch issue 148219; 2 us on a"
    " newer Mac, pytorch pull request 188921)",
    "graph_launch": "{:.3g} us for one through MPSGraph (20 us on M1 Pro, 11 us on a newer Mac, same sources)",
    "wait": "{:.3g} us each time the host waits for the GPU (the smallest synchronised operations with torch on M1 Pro,"
    " github.com/TristanBilot/mlx-benchmark)",
}


@dataclass(frozen=True)
class Estimate:
    """An expected time, and what it is made of.

    Attributes:
        mac: name of the Mac.
        seconds: for everything that was metered.
        step_seconds: for one optimizer step, start-up left out; None where no optimizer stepped.
        gpu_seconds, host_seconds: what GPU and host need; the longer one counts.
        wait_seconds, copy_seconds: synchronisations, and transfers between host and device; they come on top.
        limits: seconds of the GPU by what limits them: "memory", "arithmetic", "gaps".
        by_op, by_module: seconds of the GPU, longest first.
        assumptions: one line for each thing that was assumed, the error among them.
    """

    mac: str
    seconds: float
    step_seconds: float | None
    gpu_seconds: float
    host_seconds: float
    wait_seconds: float
    copy_seconds: float
    limits: dict[str, float]
    by_op: dict[str, float] = field(repr=False)
    by_module: dict[str, float] = field(repr=False)
    assumptions: tuple[str, ...] = field(repr=False)

    @property
    def steps_per_second(self) -> float | None:
        """Optimizer steps; None where none was metered."""
        return 1 / self.step_seconds if self.step_seconds else None

    def to_dict(self) -> dict[str, Any]:
        """Everything, of types that JSON knows."""
        return {**asdict(self), "steps_per_second": self.steps_per_second, "assumptions": list(self.assumptions)}


@dataclass(frozen=True)
class _Time:
    """Of one row, in seconds."""

    row: Row
    memory: float
    arithmetic: float
    gaps: float
    host: float

    @property
    def gpu(self) -> float:
        return max(self.memory, self.arithmetic) + self.gaps


def estimate(usage: Usage, mac: MacProfile | str, rates: Rates = Rates()) -> Estimate:
    """The time that a run would take.

    Args:
        usage: what the meter counted.
        mac: a profile, or a text for `patcher.macs.mac.parse`.
        rates: what torch reaches of the Mac's peak.
    """
    profile = parse(mac) if isinstance(mac, str) else mac
    times = [_time(row, profile, rates) for row in usage.rows]
    copied = usage.copies.to_device_bytes + usage.copies.to_host_bytes
    gpu, host = _sum(time.gpu for time in times), _sum(time.host for time in times)
    wait, copy = usage.synchronizations * rates.wait, _copy_seconds(copied, profile, rates)
    memory_bound = [time for time in times if time.memory >= time.arithmetic]
    return Estimate(
        mac=profile.name,
        seconds=max(gpu, host) + wait + copy,
        step_seconds=_step_seconds(usage, profile, rates, max(gpu, host) + wait + copy),
        gpu_seconds=gpu,
        host_seconds=host,
        wait_seconds=wait,
        copy_seconds=copy,
        limits={
            "memory": _sum(time.memory for time in memory_bound),
            "arithmetic": _sum(time.arithmetic for time in times if time.memory < time.arithmetic),
            "gaps": _sum(time.gaps for time in times),
        },
        by_op=_by((time.row.op, time.gpu) for time in times),
        by_module=_by((time.row.module, time.gpu) for time in times),
        assumptions=_assumptions(profile, rates),
    )


def _time(row: Row, mac: MacProfile, rates: Rates) -> _Time:
    counts, name = row.counts, _plain(row.op)
    return _Time(
        row=row,
        memory=counts.bytes / (mac.bandwidth * rates.bandwidth),
        arithmetic=counts.flops / _rate(name, row.arithmetic, mac, rates),
        gaps=counts.dispatches * rates.gap,
        host=counts.dispatches * (rates.graph_launch if name in GRAPH_OPS else rates.kernel_launch),
    )


def _rate(name: str, arithmetic: str, mac: MacProfile, rates: Rates) -> float:
    """FLOP per second that an operator reaches."""
    if name not in MATRIX_OPS:
        return mac.tflops_fp32 * rates.vector
    if arithmetic == "bfloat16" and _generation(mac) == 1:
        return mac.tflops_fp32 * rates.matrix_bfloat16_m1
    if arithmetic in ("float16", "bfloat16"):
        has_units = mac.tflops_fp16 > mac.tflops_fp32
        return mac.tflops_fp16 * (rates.matrix_units_m5 if has_units else rates.matrix)
    return mac.tflops_fp32 * rates.matrix


def _generation(mac: MacProfile) -> int:
    return int(mac.name.split()[0].removeprefix("M"))


def _plain(op: str) -> str:
    """``"aten::mul_.Tensor"`` is ``"mul"``."""
    name = op.partition("::")[2].partition(".")[0]
    return name[:-1] if name.endswith("_") else name


def _copy_seconds(copied: int, mac: MacProfile, rates: Rates) -> float:
    # Read and written: host and device share one memory.
    return 2 * copied / (mac.bandwidth * rates.bandwidth)


def _step_seconds(usage: Usage, mac: MacProfile, rates: Rates, total: float) -> float | None:
    steps = usage.optimizer_steps
    if steps < 2 or not usage.step_rows:
        return total / steps if steps else None
    times = [_time(row, mac, rates) for row in usage.step_rows]
    later = [step for step in usage.steps if step.number > usage.steps[0].number]
    counted = usage.optimizer_steps - 1
    share = counted / max(1, sum(step.steps for step in later))
    waits = sum(step.synchronizations for step in later) * rates.wait * share
    copies = _copy_seconds(sum(step.copied_bytes for step in later), mac, rates) * share
    return (max(_sum(time.gpu for time in times), _sum(time.host for time in times)) + waits + copies) / counted


def _sum(values: Iterable[float]) -> float:
    return sum(values, 0.0)


def _by(items: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, seconds in items:
        sums[name] = sums.get(name, 0.0) + seconds
    return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))


def _assumptions(mac: MacProfile, rates: Rates) -> tuple[str, ...]:
    guessed = {name: reason for name, reason in mac.estimated if name in ("clock_mhz", "bandwidth_gbs", "fp16_factor")}
    lines = [
        f"{mac.name}: {mac.bandwidth / GIGA:.4g} GB/s, {mac.tflops_fp32 / 1e12:.3g} TFLOPS in fp32,"
        f" {mac.tflops_fp16 / 1e12:.3g} in half precision matrix products",
        *(f"an estimate among these: {name}: {reason}" for name, reason in guessed.items()),
    ]
    for name, value in asdict(rates).items():
        if (name == "matrix_bfloat16_m1" and _generation(mac) != 1) or (
            name == "matrix_units_m5" and mac.tflops_fp16 <= mac.tflops_fp32
        ):
            continue
        lines.append(_EXPLAINED[name].format(value / MICRO if name in _SECONDS else value))
    lines += [
        "the host launches ahead of the GPU; Python between the operators, data loading and compilation cost nothing",
        "every operator is one kernel; nothing stays in a cache from one kernel to the next; no thermal throttling",
        ERROR,
    ]
    return tuple(lines)


_SECONDS = frozenset({"gap", "kernel_launch", "graph_launch", "wait"})
