"""Probes of what PyTorch's mps backend is known to have got wrong, silently, in some version."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from patcher.verify import lookups
from patcher.verify.check import MPS, Check, Failed, Situation
from patcher.verify.compare import assert_close, distance, tolerance

LONG = 33024
"""A sum over more than 32766 elements reads past its operands on some versions (pytorch#177116, #193487, #195163)."""


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _into_poisoned_memory(*tensors: Tensor) -> list[Tensor]:
    """Copies on the device, in memory that was freed full of NaN: what reads past their ends then shows."""
    poison = [torch.full((t.numel() + 4096,), float("nan"), dtype=t.dtype, device="mps") for t in tensors * 2]
    torch.mps.synchronize()
    del poison
    gc.collect()
    return [tensor.to("mps") for tensor in tensors]


def long_reduction(here: Situation) -> str:
    """Products whose sums run over more than 32766 elements, alone and in a batch."""
    errors, allowed = [], tolerance(torch.float32, length=LONG)
    a, b = _random(32, LONG), _random(LONG, 48, seed=1)
    exact = a.double() @ b.double()
    x, y = _into_poisoned_memory(a, b)
    errors.append(assert_close("matmul", (x @ y).cpu(), exact, allowed))
    x, y = _into_poisoned_memory(a[None], b[None])
    errors.append(assert_close("bmm", torch.bmm(x, y)[0].cpu(), exact, allowed))
    return distance(errors, allowed)


def long_weight_gradient(here: Situation) -> str:
    """The weight gradient of a linear layer over more than 32766 tokens."""
    x, grad = _random(LONG, 24), _random(LONG, 16, seed=1)
    weight = torch.zeros(16, 24, device="mps", requires_grad=True)
    on_mps = _into_poisoned_memory(x, grad)
    torch.autograd.backward(functional.linear(on_mps[0], weight), on_mps[1])
    allowed = tolerance(torch.float32, length=LONG)
    return distance([assert_close("dW", _grad(weight), grad.double().T @ x.double(), allowed)], allowed)


def _grad(tensor: Tensor) -> Tensor:
    if tensor.grad is None:
        raise Failed("no gradient arrived")
    return tensor.grad.cpu()


def causal_attention(here: Situation) -> str:
    """Causal attention in half precision does not see later tokens."""
    for dtype in (torch.float16, torch.bfloat16):
        for length in (13, 96):
            _no_leak(dtype, length)
    return "no leak in fp16 and bf16"


def _no_leak(dtype: torch.dtype, length: int) -> None:
    q, k, v = (_random(1, 2, length, 64, seed=seed, dtype=dtype).to("mps") for seed in range(3))
    half = length // 2
    before = functional.scaled_dot_product_attention(q, k, v, is_causal=True)[:, :, :half].cpu().float()
    k[:, :, half:], v[:, :, half:] = 50.0, -50.0
    after = functional.scaled_dot_product_attention(q, k, v, is_causal=True)[:, :, :half].cpu().float()
    allowed = tolerance(dtype, length=length) * before.abs().max()
    rows = (~((before - after).abs() <= allowed)).any(-1).sum()
    if rows:
        raise Failed(f"{dtype}, {length} tokens: {rows} rows change with tokens that come after them")


def strided_attention(here: Situation) -> str:
    """Attention on transposed views, forward and backward, is that on contiguous copies."""
    made = [_random(2, 19, 4, 32, seed=seed) for seed in range(4)]
    grad = made.pop()

    def run(device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [tensor.to(device, dtype).requires_grad_() for tensor in made]
        q, k, v = (leaf.transpose(1, 2) for leaf in leaves)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.autograd.backward(out, grad.to(device, dtype).transpose(1, 2))
        return out.detach(), *(_grad(leaf) for leaf in leaves)

    return _same_on_cpu(("output", "dq", "dk", "dv"), run, length=32)


def padded_rows(here: Situation) -> str:
    """A row of fp16 attention that may look at nothing becomes zero, not NaN, which 0 * NaN would carry to others."""
    q = _random(1, 2, 8, 64, dtype=torch.float16).to("mps").requires_grad_()
    mask = torch.ones(8, 8, dtype=torch.bool, device="mps").tril()
    mask[2] = False
    out = functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
    torch.autograd.backward(out.sum())
    broken = int((~out.isfinite()).any(-1).sum()), int((~_grad(q).isfinite()).any(-1).sum())
    if any(broken):
        raise Failed(f"{broken[0]} of 16 rows, and the gradients of {broken[1]}, are not finite")
    return "finite, forward and backward"


def ignored_input(here: Situation) -> str:
    """``baddbmm`` with ``beta=0`` ignores what it would add, be it NaN (pytorch#187521)."""
    for dtype in (torch.float32, torch.bfloat16):
        nothing, one = (torch.full((2, 3, 3), value, dtype=dtype, device="mps") for value in (float("nan"), 1.0))
        if not bool((torch.baddbmm(nothing, one, one, beta=0) == 3).all()):
            raise Failed(f"{dtype}: NaN in the ignored input reaches the result")
    return "ignored in fp32 and bf16"


def half_linear(here: Situation) -> str:
    """A linear layer in half precision on 3-D input is right, every time (pytorch#180776)."""
    for dtype in (torch.float16, torch.bfloat16):
        x, weight = _random(2, 13, 256, dtype=dtype), _random(256, 256, seed=1, dtype=dtype)
        exact, allowed = x.double() @ weight.double().T, tolerance(dtype, length=256)
        for _ in range(3):
            assert_close(f"{dtype}", functional.linear(x.to("mps"), weight.to("mps")).cpu(), exact, allowed)
    return "three times each in fp16 and bf16"


def scaled_optimizer(here: Situation) -> str:
    """A fused optimizer divides gradients by the scaler's scale, and rests where one was infinite (pytorch#186360)."""
    for infinite, expected in ((0.0, 0.75), (1.0, 1.0)):
        weight = torch.ones(8, device="mps", requires_grad=True)
        weight.grad = torch.full_like(weight, 2.0)
        step: Any = torch.optim.SGD([weight], lr=0.5, fused=True)
        step.grad_scale, step.found_inf = (torch.tensor(value, device="mps") for value in (4.0, infinite))
        step.step()
        if weight.tolist() != [expected] * 8:
            raise Failed(f"a weight of 1 becomes {weight[0].item()} instead of {expected}")
    return "scale and infinities"


def checkpoint_dropout(here: Situation) -> str:
    """Recomputing a block with dropout draws the same mask, so that gradients belong to the forward."""
    for reentrant in (False, True):
        x = torch.ones(4096, device="mps", requires_grad=True)
        y = checkpoint(partial(functional.dropout, p=0.5), x, use_reentrant=reentrant)
        torch.randn(10, device="mps")
        torch.autograd.backward(y.sum())
        if not torch.equal(_grad(x), y.detach().cpu()):
            raise Failed(f"use_reentrant={reentrant}: the backward uses another mask than the forward")
    return "the same mask, both kinds of checkpoint"


def non_blocking_copy(here: Situation) -> str:
    """A non-blocking copy to the device has read its source before that changes."""
    for step in range(32):
        source = torch.full((1 << 18,), float(step))
        copied = source.to("mps", non_blocking=True)
        source.fill_(float("nan"))
        del source
        if not bool((copied == step).all()):
            raise Failed(f"the copy number {step + 1} of 32 has other values than its source had")
    return "32 copies"


def layer_norm_gradients(here: Situation) -> str:
    """layer_norm's weight and bias get gradients when its input needs none."""
    x, grad = _random(33, 40), _random(33, 40, seed=1)

    def run(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        weight = torch.ones(40, device=device, dtype=dtype, requires_grad=True)
        bias = torch.zeros(40, device=device, dtype=dtype, requires_grad=True)
        out = functional.layer_norm(x.to(device, dtype), (40,), weight, bias)
        torch.autograd.backward(out, grad.to(device, dtype))
        return _grad(weight), _grad(bias)

    return _same_on_cpu(("dW", "db"), run, length=40)


def _same_on_cpu(names: tuple[str, ...], run: Callable[[str, torch.dtype], tuple[Tensor, ...]], length: int) -> str:
    """Compares what ``run`` gives on mps in fp32 with what it gives on the CPU in fp64."""
    allowed = tolerance(torch.float32, length=length)
    pairs = zip(names, run("mps", torch.float32), run("cpu", torch.float64), strict=True)
    return distance([assert_close(name, found.cpu(), exact, allowed) for name, found, exact in pairs], allowed)


def small_linear(here: Situation) -> str:
    """Linear layers with a bias and few inputs or single rows, forward and backward (pytorch#188438)."""
    told = ""
    for rows, features in (((4, 7), 1), ((4, 7), 2), ((80, 1), 2), ((1, 1), 64), ((4, 7), 3), ((4, 7), 5), ((4, 7), 8)):
        x, weight, bias = _random(*rows, features), _random(32, features, seed=1), _random(32, seed=2)

        def run(device: str, dtype: torch.dtype, leaves: Any = (x, weight, bias)) -> tuple[Tensor, ...]:
            made = [leaf.to(device, dtype).detach().requires_grad_() for leaf in leaves]
            out = functional.linear(*made)
            torch.autograd.backward(out.square().sum())
            return out.detach(), *(_grad(leaf) for leaf in made)

        told = _same_on_cpu((f"{rows} rows of {features}: output", "dx", "dW", "db"), run, length=80 * 32)
    return told


def many_rows_linear(here: Situation) -> str:
    """A linear layer with a bias on a batch of more than 65536 (pytorch#189495)."""
    x, weight, bias = _random(65600, 1, 4), _random(3, 4, seed=1), _random(3, seed=2)
    return _same_on_cpu(
        ("output",),
        lambda device, dtype: (functional.linear(*(t.to(device, dtype) for t in (x, weight, bias))),),
        length=4,
    )


def conv_weight_gradient(here: Situation) -> str:
    """The weight gradient of a convolution over a batch of more than 65536 (pytorch#96225, #193577)."""
    x, grad = _random(65600, 1, 4), _random(65600, 2, 2, seed=1)

    def run(device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        weight = torch.zeros(2, 1, 3, device=device, dtype=dtype, requires_grad=True)
        torch.autograd.backward(functional.conv1d(x.to(device, dtype), weight), grad.to(device, dtype))
        return (_grad(weight),)

    return _same_on_cpu(("dW",), run, length=2 * 65600)


def cuda_autocast(here: Situation) -> str:
    """``autocast("cuda")``, which scripts and libraries say, acts on mps under the patches."""
    a = torch.ones(8, 8, device="mps")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        if (a @ a).dtype != torch.bfloat16:
            raise Failed("autocast('cuda') leaves mps in fp32")
        with torch.autocast("cuda", enabled=False):
            if (a @ a).dtype != torch.float32:
                raise Failed("autocast('cuda', enabled=False) leaves mps autocast on")
    return "on, and off again"


def transposed_bf16_weight(here: Situation) -> str:
    """A transposed bf16 weight in a linear layer with 3-D input; aborted the process on macOS 27 (pytorch#197796)."""
    x, weight = _random(2, 9, 32, dtype=torch.bfloat16), _random(32, 24, seed=1, dtype=torch.bfloat16)
    found = functional.linear(x.to("mps"), weight.to("mps").t()).cpu()
    allowed = tolerance(torch.bfloat16, length=32)
    return distance([assert_close("output", found, x.double() @ weight.double(), allowed)], allowed)


_check = partial(Check, "known hazards", needs=(MPS,))
_UPDATE = "update torch (2.14 or later); until then "

CHECKS = (
    _check("sums over 32767 elements", long_reduction, _UPDATE + "keep batch times length below 32767 tokens"),
    _check("dW over 32767 tokens", long_weight_gradient, _UPDATE + "keep batch times length below 32767 tokens"),
    _check("causal attention", causal_attention, _UPDATE + "load models with attn_implementation='eager'"),
    _check("strided attention", strided_attention, _UPDATE + "load models with attn_implementation='eager'"),
    _check("checkpointed dropout", checkpoint_dropout, "call patch_for_mac() first, or train with dropout 0"),
    _check("non-blocking copy", non_blocking_copy, "call patch_for_mac() first, or copy with non_blocking=False"),
    _check("layer_norm gradients", layer_norm_gradients, _UPDATE + "do not train norm layers"),
    _check("small linear layers", small_linear, _UPDATE + "do not use linear layers with fewer than 8 inputs"),
    _check("padded rows", padded_rows, _UPDATE + "train in bf16 or fp32"),
    _check("baddbmm with beta=0", ignored_input, _UPDATE + "call patch_for_mac() first"),
    _check("linear layers in half precision", half_linear, _UPDATE + "call patch_for_mac() first, or train in fp32"),
    _check("fused optimizer with a scaler", scaled_optimizer, _UPDATE + "set optim='adamw_torch', or fp16=False"),
    _check("linear on 65536 rows", many_rows_linear, _UPDATE + "use smaller batches"),
    _check("autocast('cuda')", cuda_autocast, "call patch_for_mac() before the first import of torch"),
    _check("convolution on 65536 rows", conv_weight_gradient, _UPDATE + "use smaller batches", full=True),
    _check("transposed bf16 weight", transposed_bf16_weight, _UPDATE + "load models in fp16 or fp32", full=True),
    *lookups.CHECKS,
)
