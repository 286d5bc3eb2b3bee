"""The meter: dispatches, bytes and FLOPs of small programs, by hand arithmetic and by torch's own counter."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from patcher.errors import MeterRunning
from patcher.simulator import Device
from patcher.simulator.meter import Meter
from patcher.simulator.usage import Copies, Counts, Usage, compare
from tests.simulator.conftest import TORCH

FLOAT = 4
"""Bytes of a float32."""


BACKWARD = "aten::linear_backward" if TORCH == "2.13" else "aten::mm"
"""What computes the gradients of a linear layer on the device."""


def metered(program: Callable[[], object]) -> Usage:
    with Meter() as meter:
        program()
    return meter.usage()


def only(usage: Usage, op: str) -> Counts:
    assert set(usage.by_op) == {op}, usage.by_op
    return usage.by_op[op]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Whatever a test does, the meter's hooks are gone afterwards and the device counts nothing."""
    from torch.nn.modules import module
    from torch.optim import optimizer

    yield
    hooks = (
        module._global_forward_pre_hooks,
        module._global_forward_hooks,
        module._global_forward_hooks_always_called,
        optimizer._global_optimizer_pre_hooks,
        optimizer._global_optimizer_post_hooks,
    )
    assert not any(hooks)


def mps(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, device="mps", dtype=dtype)


def test_elementwise_kernels() -> None:
    """One FLOP an element; what is broadcast, or given twice, is read once; in place reads and writes the tensor."""
    x, row, column = mps(8, 16), mps(16), mps(8, 1)
    size = 8 * 16 * FLOAT
    assert only(metered(lambda: x + row), "aten::add.Tensor") == Counts(1, size + 16 * FLOAT, size, 128)
    assert only(metered(lambda: x * column.expand(8, 16)), "aten::mul.Tensor") == Counts(1, size + 32, size, 128)
    assert only(metered(lambda: x * x), "aten::mul.Tensor") == Counts(1, size, size, 128)
    assert only(metered(lambda: x.mul_(row)), "aten::mul_.Tensor") == Counts(1, size + 64, size, 128)
    assert only(metered(lambda: x[:, ::2].exp()), "aten::exp") == Counts(1, size // 2, size // 2, 64)


def test_filling_and_copying() -> None:
    """Filling reads nothing, copying computes nothing, a conversion reads one dtype and writes the other."""
    x, y = mps(8, 16), mps(8, 16, dtype=torch.float16)
    assert only(metered(x.zero_), "aten::zero_") == Counts(1, 0, 512, 0)
    assert only(metered(lambda: x.fill_(2.0)), "aten::fill_.Scalar") == Counts(1, 0, 512, 0)
    assert only(metered(lambda: x.copy_(y)), "aten::copy_") == Counts(1, 256, 512, 0)
    assert only(metered(lambda: x.t().contiguous()), "aten::copy_") == Counts(1, 512, 512, 0)
    assert only(metered(lambda: torch.cat([x, x[:4]])), "aten::cat") == Counts(1, 512 + 256, 768, 0)


def test_views_and_allocation_are_free() -> None:
    """What launches no kernel on a Mac is not there."""
    x = mps(8, 16)

    def program() -> None:
        x.t().reshape(2, 8, 8).permute(2, 0, 1)[1:, ::2].unsqueeze(0).expand(3, -1, -1, -1)
        x.detach().view(torch.int32).unfold(0, 2, 1).chunk(2)
        torch.empty_like(x).resize_(3).set_(x)
        mps(0, 4) + 1
        x[:0].sum(1)

    assert metered(program).counts == Counts()


def test_rows_that_are_picked() -> None:
    """A lookup touches the rows that it picks, not the table."""
    table, index = mps(1000, 8), torch.tensor([3, 1, 3], device="mps")
    rows = 3 * 8 * FLOAT
    assert only(metered(lambda: F.embedding(index, table)), "aten::index_select") == Counts(1, rows + 24, rows, 0)
    assert only(metered(lambda: table[index]), "aten::index.Tensor") == Counts(1, rows + 24, rows, 0)
    put = metered(lambda: table.index_copy_(0, index, mps(3, 8)))
    assert put.by_op["aten::index_copy_"] == Counts(1, 2 * rows + 24, rows, 0)


def test_matrix_products() -> None:
    """Two FLOPs for each multiply-add, and operands and result once."""
    a, b, bias = mps(8, 16), mps(16, 4), mps(4)
    bytes_in, bytes_out, flops = (8 * 16 + 16 * 4) * FLOAT, 8 * 4 * FLOAT, 2 * 8 * 16 * 4
    assert only(metered(lambda: a @ b), "aten::mm") == Counts(1, bytes_in, bytes_out, flops)
    assert only(metered(lambda: F.linear(a, b.t(), bias)), "aten::linear") == Counts(1, bytes_in + 16, bytes_out, flops)
    batched = metered(lambda: torch.bmm(a.expand(3, 8, 16), b.expand(3, 16, 4)))
    assert only(batched, "aten::bmm") == Counts(1, bytes_in, 3 * bytes_out, 3 * flops)
    assert metered(lambda: a @ mps(16)).flops == 2 * 8 * 16


def test_integers_do_no_flops() -> None:
    """A FLOP is a floating one, and each kernel has the dtype that it computes in."""
    x = torch.arange(12, device="mps")
    assert metered(lambda: x + x).counts == Counts(1, 96, 96, 0)
    half = metered(lambda: mps(4, 4, dtype=torch.bfloat16) @ mps(4, 4, dtype=torch.bfloat16))
    assert half.by_arithmetic["bfloat16"].flops == 128
    assert metered(lambda: mps(4) * torch.ones(4, device="mps", dtype=torch.float16)).by_op["aten::mul.Tensor"]
    assert set(metered(lambda: x.float() * 2).by_arithmetic) == {"float32"}


def test_copies_between_host_and_device() -> None:
    """They are counted apart from kernels, with the waiting that they cost."""
    x, host = mps(8, 16), torch.ones(8, 16)
    usage = metered(lambda: (host.to("mps"), x.cpu(), x[0, 0].item(), torch.mps.synchronize()))
    assert usage.counts == Counts()
    copies = usage.copies
    assert (copies.to_device, copies.to_device_bytes) == (1, 512)
    assert (copies.to_host, copies.to_host_bytes) == (2, 512 + 4)
    assert usage.synchronizations == 4
    assert metered(lambda: host.to("mps", non_blocking=True)).synchronizations == 0
    assert metered(lambda: x[x > 2]).synchronizations == 1  # how many there are only the device knows


class Small(torch.nn.Module):
    """A convolution, attention and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(8, 8, 3, padding=1)
        self.up = torch.nn.ConvTranspose1d(8, 8, 2, stride=2)
        self.head = torch.nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.up(self.conv(x)).transpose(1, 2).unflatten(-1, (2, 4)).transpose(1, 2)
        return self.head(F.scaled_dot_product_attention(hidden, hidden, hidden).transpose(1, 2).flatten(2))


def product_flops(usage: Usage) -> int:
    """FLOPs of the families that torch's counter knows."""
    known = ("mm", "addmm", "bmm", "baddbmm", "linear", "linear_backward", "convolution_overrideable")
    flops = 0
    for op, counts in usage.by_op.items():
        name = op.removeprefix("aten::")
        backward = name.startswith("convolution_backward_overrideable") and not name.endswith(".bias")
        flops += counts.flops if name in known or backward else 0
    return flops


def test_flops_are_those_of_torchs_counter() -> None:
    """Convolution, its transpose, attention and linear, forward and backward."""
    model = Small().to("mps")
    x = torch.ones(2, 8, 6, device="mps", requires_grad=True)
    usage = metered(lambda: model(x).square().sum().backward())
    counter = FlopCounterMode(display=False)
    cpu_model, cpu_x = Small(), torch.ones(2, 8, 6, requires_grad=True)
    with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        cpu_model(cpu_x).square().sum().backward()
    assert product_flops(usage) == counter.get_total_flops()


def test_flops_of_grouped_convolutions() -> None:
    """Groups divide the work of all three products (torch's counter forgets that in the gradient of the weight)."""
    conv, x = torch.nn.Conv1d(8, 12, 3, groups=4).to("mps"), torch.ones(2, 8, 6, device="mps", requires_grad=True)
    usage = metered(lambda: conv(x).sum().backward())
    each = 2 * (2 * 12 * 4) * (3 * 8 // 4)  # multiply-add, output elements, window
    assert usage.by_op["aten::convolution_overrideable"].flops == each
    assert usage.by_op["aten::convolution_backward_overrideable.input"].flops == each
    assert usage.by_op["aten::convolution_backward_overrideable.weight"].flops == each


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    model(x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_modules_phases_and_steps() -> None:
    """Kernels belong to the innermost module, backwards to the module of their forward, and the parts to the whole."""
    model, x = Small().to("mps"), mps(2, 8, 6)
    optimizer = torch.optim.SGD(model.parameters())
    step(model, optimizer, x)

    def program() -> None:
        for _ in range(3):
            step(model, optimizer, x)

    usage = metered(program)
    assert set(usage.by_module) == {"", "Small", "Small.conv", "Small.up", "Small.head"}
    of_head = [row for row in usage.rows if row.module == "Small.head" and row.op in ("aten::linear", BACKWARD)]
    head = {row.phase: row.counts for row in of_head}
    tokens, flops = 2 * 12, 2 * 2 * 12 * 8 * 5
    assert head["forward"].flops == 3 * flops
    assert head["backward"].flops == 3 * 2 * flops  # of the input and of the weight
    assert usage.by_phase["optimizer"].dispatches == 3 * len(list(model.parameters()))
    for parts in (usage.by_op, usage.by_module, usage.by_phase, usage.by_arithmetic):
        assert sum(parts.values(), Counts()) == usage.counts
    assert usage.within("Small") == usage.counts - usage.by_module[""]
    assert [one.number for one in usage.steps] == [1, 2, 3] and usage.optimizer_steps == 3
    assert usage.steps[1].counts == usage.steps[2].counts
    assert tokens * 8 * FLOAT < usage.steps[1].peak_bytes <= usage.peak_bytes


def test_checkpointed_layers_are_recomputed_in_the_backward() -> None:
    """What runs again for the gradient is the same module's, in the backward."""
    from torch.utils.checkpoint import checkpoint

    layers = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)).to("mps")
    x = torch.ones(3, 4, device="mps", requires_grad=True)
    # The newer form stops before the last product, whose result nobody needs.
    for reentrant, again in ((False, 1), (True, 2)):
        usage = metered(lambda: checkpoint(layers, x, use_reentrant=reentrant).sum().backward())  # noqa: B023
        products = [row for row in usage.rows if "linear" in row.op]
        assert {row.module for row in products} == {"Sequential.0", "Sequential.1"}
        runs = [(row.phase, row.counts.dispatches) for row in products if row.op == "aten::linear"]
        assert sum(count for phase, count in runs if phase == "forward") == 2
        assert sum(count for phase, count in runs if phase == "backward") == again


def test_figures_repeat(device: Device) -> None:
    """The same program gives the same figures, to the last byte, memory over time included."""
    model, x = Small().to("mps"), mps(2, 8, 6)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    step(model, optimizer, x)
    first, second = (metered(lambda: step(model, optimizer, x)) for _ in range(2))
    assert first == second and not compare(first, second)
    assert Usage.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    more = metered(lambda: (step(model, optimizer, x), mps(4)))
    assert [(c.name, c.difference) for c in compare(first, more)] == [("aten::fill_.Scalar", Counts(1, 0, 16, 0))]


def test_memory_over_time() -> None:
    """The peak is exact, tensors from before included, and the timeline shows when it was reached."""
    kept = mps(1000)
    with Meter() as meter:
        before = meter.usage().peak_bytes
        big = mps(5000)
        del big
        mps(10).add_(1)
    usage = meter.usage()
    assert usage.peak_bytes - before == 5000 * FLOAT
    assert [point.dispatches for point in usage.timeline] == [1, 2, 3]
    assert [point.bytes - before for point in usage.timeline] == [20000, 20000, 40]
    assert usage.reserved_bytes >= usage.peak_bytes >= kept.nbytes


def test_a_long_timeline_is_thinned_out() -> None:
    """At most 1024 points, of which the highest is the peak, and the last is near the end."""
    x = mps(1)
    with Meter() as meter:
        for i in range(3000):
            x.add_(1)
            if i == 1234:
                mps(100000)
    points = meter.usage().timeline
    assert 512 <= len(points) < 1024 and points[-1].dispatches > 2900
    assert max(point.bytes for point in points) == meter.usage().peak_bytes


def test_threads_are_counted() -> None:
    """Every thread's kernels are put down, each under the module that its own thread is in."""
    layer, x = torch.nn.Linear(4, 4).to("mps"), mps(2, 4)

    def program() -> None:
        threads = [threading.Thread(target=lambda: [layer(x) for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            x + 1
        for thread in threads:
            thread.join()

    usage = metered(program)
    assert usage.by_module["Linear"].dispatches == 200
    assert usage.by_module[""].dispatches == 50


def test_a_failing_program() -> None:
    """An operator that raises is not put down, later ones are, and modules that were left by an exception are left."""
    layer, x = torch.nn.Linear(4, 4).to("mps"), mps(2, 4)
    meter = Meter()
    with pytest.raises(ZeroDivisionError), meter:
        with pytest.raises(RuntimeError):
            layer(mps(2, 3))
        x + 1
        raise ZeroDivisionError
    assert set(meter.usage().by_module) == {""}
    assert meter.usage().by_op["aten::add.Tensor"].dispatches == 1


SCALE = """
kernel void scale(device float* out, constant float* in, constant float& by, uint i [[thread_position_in_grid]])
{ out[i] = in[i] * by; }
"""


def test_metal_kernels_are_dispatches() -> None:
    """A launch of compile_shader reads its constant buffers and writes the others; an empty grid is no launch."""
    scale, x, out = torch.mps.compile_shader(SCALE).scale, mps(8, 16), torch.empty(8, 16, device="mps")
    usage = metered(lambda: (scale(out, x, 2.0), scale(out, x, 2.0, threads=0)))
    assert only(usage, "metal::scale") == Counts(1, 512, 512, 0)
    assert set(usage.by_arithmetic) == {"float32"}


@pytest.mark.filterwarnings("ignore:The operator")
def test_operators_that_a_mac_sends_to_the_cpu(device: Device) -> None:
    """They are no kernels: their arguments go to the host, their results come back, and both wait."""
    x = mps(8, 16)
    before, device.rules.cpu_fallback = device.rules.cpu_fallback, True
    try:
        usage = metered(lambda: torch.mode(x))
    finally:
        device.rules.cpu_fallback = before
    assert usage.counts == Counts()
    # 8 values of four bytes and 8 indices of eight come back.
    assert usage.copies == Copies(to_device=2, to_device_bytes=96, to_host=1, to_host_bytes=512)
    assert usage.synchronizations == 1


@pytest.mark.slow
def test_flops_of_a_llama_are_those_of_torchs_counter() -> None:
    """A whole model, forward and backward, with and without checkpointing."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    for checkpointed in (False, True):
        flops = {}
        for kind in ("cpu", "mps"):
            model, ids = LlamaForCausalLM(config).to(kind).train(), torch.ones(2, 12, dtype=torch.int64).to(kind)
            if checkpointed:
                model.gradient_checkpointing_enable({"use_reentrant": True})
            with FlopCounterMode(display=False) as counter, Meter() as meter:
                model(ids, labels=ids).loss.backward()
            flops[kind] = counter.get_total_flops() if kind == "cpu" else product_flops(meter.usage())
        assert flops["mps"] == flops["cpu"]
        layers = [name for name in meter.usage().by_module if ".layers.1.mlp.down_proj" in name]
        assert layers == ["LlamaForCausalLM.model.layers.1.mlp.down_proj"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_compiled_programs() -> None:
    """What torch.compile generates is put down under the module that is compiled; the meter changes no result."""
    model, x = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()).to("mps"), mps(4, 8)
    compiled = torch.compile(model)
    expected = compiled(x).detach()
    usage = metered(lambda: compiled(x).sum().backward())
    generated = [row for row in usage.rows if row.op.startswith("metal::")]
    assert generated and all(row.counts.bytes > 0 for row in generated)
    assert {row.phase for row in generated} == {"forward", "backward"}
    assert torch.equal(compiled(x), expected)


def test_one_meter_at_a_time() -> None:
    """A second meter is refused and leaves the first alone; a meter that has not run has no answer."""
    with Meter() as meter:
        with pytest.raises(MeterRunning, match="running already"), Meter():
            pass
        mps(4)
        assert meter.usage().dispatches == 1
    with pytest.raises(MeterRunning, match="counted nothing"):
        Meter().usage()
    mps(4)
    assert meter.usage().dispatches == 1
    with meter:
        pass
    assert meter.usage().dispatches == 0
