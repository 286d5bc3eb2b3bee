"""Autograd, torch.func, autocast, GradScaler and checkpointing on the simulated device, compared with the CPU."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint, checkpoint_sequential


def net(x: Tensor) -> Tensor:
    """A smooth function of rows of three: matrix product, layer norm, softmax."""
    weight = torch.linspace(-1, 1, 9, device=x.device).view(3, 3)
    return (F.layer_norm(torch.tanh(x @ weight), (3,)).softmax(-1) * x.sin()).sum(-1)


def both(function: Callable[[Tensor], Any], *shape: int, exact: bool = True) -> None:
    """`function` of the same numbers on mps and on the CPU gives the same, to the last bit if `exact`."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(3))
    mps, cpu = function(x.to("mps")), function(x)
    flat_mps, flat_cpu = torch.utils._pytree.tree_leaves(mps), torch.utils._pytree.tree_leaves(cpu)
    assert len(flat_mps) == len(flat_cpu) > 0
    for a, b in zip(flat_mps, flat_cpu, strict=True):
        assert a.device.type == "mps" and (torch.equal(a.cpu(), b) or not exact)
        torch.testing.assert_close(a.cpu(), b)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: grad(lambda y: net(y).sum())(x),
        lambda x: grad_and_value(lambda y: net(y).sum())(x),
        lambda x: vmap(net)(x),
        lambda x: vmap(grad(net))(x),
        lambda x: vmap(net, in_dims=1)(x.t()),
        lambda x: vmap(vmap(torch.cumsum, (0, None)), (0, None))(x.unsqueeze(-1), 0),
        lambda x: vmap(F.dropout, randomness="different")(torch.zeros_like(x)),
        lambda x: jvp(net, (x,), (torch.ones_like(x),)),
        lambda x: vjp(net, x)[1](torch.ones_like(x[:, 0])),
        lambda x: linearize(net, x)[1](torch.ones_like(x)),
        lambda x: jacrev(net)(x),
        lambda x: jacfwd(net)(x),
        lambda x: hessian(lambda y: net(y).sum())(x),
        lambda x: torch.autograd.functional.hvp(lambda y: net(y).sum(), x, torch.ones_like(x)),
        lambda x: torch.func.functionalize(lambda y: y.clone().add_(1).mul_(2))(x),
    ],
    ids=range(15),
)
def test_torch_func(function: Callable[[Tensor], Any]) -> None:
    """grad, vmap, jvp, vjp, jacobians, Hessians and functionalize, nested too."""
    both(function, 4, 3)


def test_functional_call_and_ensembles() -> None:
    """Per-sample gradients of a module, and a stack of modules called as one."""

    def run(x: Tensor) -> list[Tensor]:
        torch.manual_seed(0)
        models = [nn.Linear(3, 2).to(x.device) for _ in range(3)]
        parameters, _ = torch.func.stack_module_state(models)  # type: ignore[arg-type]
        outputs = vmap(lambda p: functional_call(models[0], p, (x,)))(parameters)

        def loss(p: dict[str, Tensor], row: Tensor) -> Tensor:
            return functional_call(models[0], p, (row[None],)).square().sum()

        per_sample = vmap(grad(loss), (None, 0))({k: v.detach() for k, v in models[0].named_parameters()}, x)
        return [outputs, *per_sample.values()]

    both(run, 4, 3)


def test_gradients_of_gradients() -> None:
    """Second and third derivatives through matmul, norm, softmax, attention, convolution and losses."""

    def third(x: Tensor) -> list[Tensor]:
        x = x.clone().requires_grad_()
        q = x.view(1, 1, 4, 3)
        with sdpa_kernel(SDPBackend.MATH):  # the CPU's other one has no second derivative
            y = F.scaled_dot_product_attention(q, q * 2, q.cos(), is_causal=True).sum() + net(x).sum()
        y = y + F.conv1d(x[None], x[:, :2, None].expand(4, 2, 2).reshape(2, 4, 2)).square().mean()
        y = y + F.cross_entropy(x, torch.tensor([0, 1, 2, 1], device=x.device))
        (first,) = torch.autograd.grad(y, x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
        (last,) = torch.autograd.grad(second.sum(), x)
        return [first.detach(), second.detach(), last]

    # The CPU takes other operators for convolution and attention; float32's default tolerance covers their rounding.
    both(third, 4, 3, exact=False)


def test_forward_mode_and_in_place() -> None:
    """Dual numbers, in-place operators in the graph, views that are written to, and detached aliases."""

    def run(x: Tensor) -> list[Tensor]:
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
            tangent = torch.autograd.forward_ad.unpack_dual(net(dual)).tangent.clone()
        leaf = x.clone().requires_grad_()
        y = leaf * 1
        y[1].mul_(3)
        y[:, 0] = leaf[:, 1].exp()
        y.view(-1)[2:5].add_(leaf.flatten()[:3])
        y.square().sum().backward()
        assert leaf.grad is not None
        return [tangent, leaf.grad]

    both(run, 4, 3)


def test_hooks_run_on_mps_and_in_order() -> None:
    """Tensor, module, post-accumulate and multi-gradient hooks see mps tensors; changed gradients are used."""
    seen: list[str] = []

    def saw(name: str) -> Callable[..., None]:
        def hook(*arguments: object) -> None:
            tensors = [t for t in torch.utils._pytree.tree_leaves(arguments) if isinstance(t, Tensor)]
            assert tensors and all(t.device.type == "mps" for t in tensors)
            seen.append(name)

        return hook

    layer = nn.Linear(2, 2).to("mps")
    x = torch.ones(1, 2, device="mps", requires_grad=True)
    layer.register_forward_pre_hook(saw("forward pre"))
    layer.register_forward_hook(saw("forward"))
    layer.register_full_backward_pre_hook(saw("backward pre"))
    layer.register_full_backward_hook(saw("backward"))
    layer.weight.register_post_accumulate_grad_hook(saw("post accumulate"))
    doubled = x.register_hook(lambda gradient: gradient * 2)
    out = layer(x)
    out.grad_fn.register_hook(saw("node"))
    torch.autograd.graph.register_multi_grad_hook((layer.weight, layer.bias), saw("multi"))
    out.sum().backward()
    assert sorted(seen) == sorted(
        ["forward pre", "forward", "backward pre", "node", "multi", "post accumulate", "backward"]
    )
    assert seen[:3] == ["forward pre", "forward", "backward pre"]
    assert x.grad is not None and torch.equal(x.grad, 2 * layer.weight.detach().sum(0, keepdim=True))
    doubled.remove()


def test_saved_tensors_can_be_moved_and_watched() -> None:
    """`save_on_cpu` keeps activations on the CPU and gives the same gradient; `saved_tensors_hooks` sees them."""
    x = torch.randn(3, 3, device="mps")
    gradients = []
    packed: list[str] = []
    for context in (
        torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.device.type) or t, lambda t: t),  # type: ignore[func-returns-value]
        torch.autograd.graph.save_on_cpu(),
    ):
        leaf = x.clone().requires_grad_()
        with context:
            loss = (leaf.exp() @ leaf).sum()
        loss.backward()
        gradients.append(leaf.grad)
    assert torch.equal(gradients[0], gradients[1]) and set(packed) == {"mps"}  # type: ignore[arg-type]


def test_autocast_has_the_lists_of_a_mac() -> None:
    """Half precision for matmuls, float32 for losses and norms, the widest type where operands are mixed."""
    half, single = torch.ones(2, 2, device="mps", dtype=torch.float16), torch.ones(2, 2, device="mps")
    with torch.autocast("mps"):
        assert torch.get_autocast_dtype("mps") == torch.float16
        for result in (single @ single, F.linear(single, single), torch.bmm(single[None], single[None])):
            assert result.dtype == torch.float16
        for result in (half.exp(), half.pow(2), half.softmax(-1), F.layer_norm(half, (2,)), half.sum(), half.norm()):
            assert result.dtype == torch.float32
        assert torch.addcmul(half, half, single).dtype == torch.float32
        assert (half + half).dtype == torch.float16
        with torch.autocast("mps", enabled=False):
            assert (single @ single).dtype == torch.float32
            with torch.autocast("mps", dtype=torch.bfloat16):
                assert (single @ single).dtype == torch.bfloat16
        assert (single @ single).dtype == torch.float16
    assert not torch.is_autocast_enabled("mps") and (single @ single).dtype == torch.float32
    with pytest.warns(UserWarning, match="In MPS autocast, but the target dtype is not supported"):
        torch.autocast("mps", dtype=torch.float32)


def test_autocast_keeps_a_casted_weight_until_it_ends(device: Any) -> None:
    """The cache holds the half-precision copy of a leaf: the second use casts nothing, leaving frees it."""
    weight = torch.ones(64, 64, device="mps", requires_grad=True)
    x = torch.ones(1, 64, device="mps", dtype=torch.float16)
    before = device.memory().current
    for cached, copies in ((True, 1), (False, 2)):
        device.reset_operator_counts()
        with torch.autocast("mps", cache_enabled=cached):
            results = [x @ weight, x @ weight]
            assert device.operator_counts().get("aten::copy_", copies) == copies
            assert (device.memory().current - before >= 64 * 64 * 2) == cached
        del results
        assert device.memory().current == before


def test_custom_functions_under_autocast() -> None:
    """`custom_fwd(device_type="mps")` casts the inputs, and `custom_bwd` restores the state of the forward."""
    states: list[tuple[bool, torch.dtype]] = []

    class Product(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="mps", cast_inputs=torch.float32)
        def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
            states.append((torch.is_autocast_enabled("mps"), a.dtype))
            ctx.save_for_backward(a, b)
            return a @ b

        @staticmethod
        @torch.amp.custom_bwd(device_type="mps")
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
            a, b = ctx.saved_tensors
            states.append((torch.is_autocast_enabled("mps"), gradient.dtype))
            return gradient @ b.t(), a.t() @ gradient

    a = torch.ones(2, 2, device="mps", dtype=torch.float16, requires_grad=True)
    with torch.autocast("mps", dtype=torch.float16):
        result = Product.apply(a, a)
    assert result.dtype == torch.float32
    result.sum().backward()
    assert states == [(False, torch.float32), (False, torch.float32)]


def test_grad_scaler_grows_and_backs_off() -> None:
    """The scale doubles after the growth interval, halves after inf, and goes through a state dict."""
    weight = nn.Parameter(torch.ones(2, device="mps"))
    optimizer = torch.optim.SGD([weight], lr=0.125)
    scaler = torch.amp.GradScaler("mps", init_scale=4.0, growth_interval=2)
    scales = []
    for factor in (1.0, 1.0, float("nan"), 1.0, 1.0):
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_([weight], 100.0)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert scales == [4.0, 8.0, 4.0, 4.0, 8.0]
    assert weight.tolist() == [0.5, 0.5]
    restored = torch.amp.GradScaler("mps")
    restored.load_state_dict(scaler.state_dict())
    assert restored.get_scale() == 8.0
    with pytest.raises(RuntimeError, match="unscale_\\(\\) has already been called"):
        scaler.scale(weight.sum()).backward()
        scaler.unscale_(optimizer)
        scaler.unscale_(optimizer)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_saves_memory_and_keeps_gradients(device: Any, reentrant: bool) -> None:
    """Gradients equal those without; the peak is lower; sequential and nested forms, early stop, autocast inside."""
    torch.manual_seed(0)
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)) for _ in range(6))).to(
        "mps"
    )
    x = torch.randn(256, 64, device="mps", requires_grad=True)

    def run(forward: Callable[[Tensor], Tensor]) -> tuple[list[Tensor], int]:
        blocks.zero_grad()
        device.reset_peak()
        before = device.memory().current
        with torch.autocast("mps", dtype=torch.bfloat16):
            loss = forward(x).float().square().mean()
        loss.backward()
        return [p.grad.clone() for p in blocks.parameters() if p.grad is not None], device.memory().peak - before

    plain, most = run(blocks)
    for forward in (
        lambda y: checkpoint(blocks, y, use_reentrant=reentrant),
        lambda y: checkpoint_sequential(blocks, 3, y, use_reentrant=reentrant),
    ):
        gradients, peak = run(forward)
        assert len(gradients) == len(plain) and all(map(torch.equal, gradients, plain)) and peak < most


def test_checkpointing_notices_another_recomputation() -> None:
    """A recomputed tensor of another shape is an error, not a silent mistake."""
    sizes = iter([2, 3])

    def changing(x: Tensor) -> Tensor:
        return (x[: next(sizes)].exp() ** 2).sum()

    x = torch.ones(4, device="mps", requires_grad=True)
    with pytest.raises(torch.utils.checkpoint.CheckpointError, match="different metadata"):
        checkpoint(changing, x, use_reentrant=False).backward()


def test_threads_compute_and_differentiate_at_once(device: Any) -> None:
    """Twelve threads that allocate, draw from own generators and run backwards: each gets the CPU's numbers."""
    results: dict[int, bool] = {}
    gc.collect()  # what other tests left is not given back meanwhile
    before = device.memory()

    def work(number: int) -> None:
        right = True
        for turn in range(6):
            seed = 100 * number + turn
            outcome = []
            for where in ("mps", "cpu"):
                generator = torch.Generator(device=where).manual_seed(seed)
                x = torch.randn(17, 9, device=where, generator=generator).requires_grad_()
                y = F.layer_norm(x, (9,)) @ torch.ones(9, 5, device=where)
                (y.softmax(-1) * x[:, :5]).sum().backward()
                assert x.grad is not None
                outcome.append(x.grad.cpu())
            right &= torch.equal(*outcome)
        results[number] = right

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(12), True)
    assert device.memory().blocks == before.blocks and device.memory().current == before.current


def test_graphs_die_with_their_last_reference(device: Any) -> None:
    """No graph or tensor is kept after the result has gone."""
    x = torch.ones(3, device="mps", requires_grad=True)
    blocks = device.memory().blocks
    y = (x * 2).exp()
    z = y * y
    gone = weakref.ref(y)
    del y, z
    assert gone() is None and device.memory().blocks == blocks


def test_anomaly_detection_names_the_forward() -> None:
    """`detect_anomaly` points to the operator that made a NaN."""
    x = torch.tensor([-1.0], device="mps", requires_grad=True)
    refused = pytest.raises(RuntimeError, match="Function 'SqrtBackward0' returned nan")
    with refused, pytest.warns(UserWarning), torch.autograd.detect_anomaly():
        (x.sqrt() * 0).backward()
