"""Asks for attention on the simulated Mac, patched, in every form that torch takes; prints what came of it as JSON.

python -m tests.changes.torch.attended
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from patcher.ops import scaled_dot_product_attention as by_blocks
from patcher.replacements.torch import attention as replacement
from patcher.simulator.meter import Meter

torch.manual_seed(0)
LOW = torch.finfo(torch.float32).min
HIDDEN = torch.arange(5)[:, None] > torch.zeros(7)  # the first query sees nothing
LOWEST = torch.where(torch.rand(5, 7) > 0.5, 0.0, LOW)
CASES: dict[str, tuple[tuple[tuple[int, ...], ...], dict[str, Any]]] = {
    "plain": (((2, 4, 13, 8), (2, 4, 13, 8), (2, 4, 13, 8)), {}),
    "causal": (((2, 4, 13, 8), (2, 4, 13, 8), (2, 4, 13, 8)), {"is_causal": True}),
    "causal, more keys": (((1, 2, 5, 8), (1, 2, 9, 8), (1, 2, 9, 8)), {"is_causal": True}),
    "causal, fewer keys": (((1, 2, 9, 8), (1, 2, 5, 8), (1, 2, 5, 8)), {"is_causal": True}),
    "grouped": (((2, 4, 6, 8), (2, 2, 7, 8), (2, 2, 7, 8)), {"enable_gqa": True}),
    "grouped, causal": (((2, 6, 7, 8), (2, 2, 7, 8), (2, 2, 7, 8)), {"enable_gqa": True, "is_causal": True}),
    "scaled": (((1, 2, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8)), {"scale": 0.7}),
    "narrow values": (((1, 2, 5, 8), (1, 2, 6, 8), (1, 2, 6, 3)), {}),
    "three dimensions": (((3, 5, 8), (3, 6, 8), (3, 6, 8)), {}),
    "boolean mask": (((2, 2, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8)), {"attn_mask": torch.rand(2, 1, 5, 7) > 0.4}),
    "padding": (((2, 2, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8)), {"attn_mask": torch.rand(2, 1, 1, 7) > 0.4}),
    "mask of a row": (((3, 5, 8), (3, 7, 8), (3, 7, 8)), {"attn_mask": torch.rand(3, 5, 7) > 0.4}),
    "nothing is seen": (((1, 2, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8)), {"attn_mask": HIDDEN}),
    "added mask": (((2, 2, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8)), {"attn_mask": torch.randn(2, 1, 5, 7)}),
    "lowest numbers": (((1, 2, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8)), {"attn_mask": LOWEST}),
    "all lowest": (((1, 2, 5, 8), (1, 2, 7, 8), (1, 2, 7, 8)), {"attn_mask": torch.full((5, 7), LOW)}),
}  # fmt: skip


def counted(run: Callable[[], Any]) -> tuple[Any, int]:
    """What ``run`` gives, and how often attention was computed by blocks meanwhile."""
    calls, own = 0, by_blocks.scaled_dot_product_attention

    def counting(*args: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return own(*args)

    by_blocks.scaled_dot_product_attention = counting
    try:
        return run(), calls
    finally:
        by_blocks.scaled_dot_product_attention = own


def attended(device: str, dtype: torch.dtype, shapes: Any, options: dict[str, Any]) -> list[Tensor]:
    """Output and gradients; a mask that is added is of the query's dtype."""
    generator = torch.Generator().manual_seed(1)
    leaves = [torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes]
    options = dict(options)
    if (mask := options.pop("attn_mask", None)) is not None:
        wide = mask if mask.dtype is torch.bool else mask.clamp(torch.finfo(dtype).min).to(dtype)
        options["attn_mask"] = wide.to(device)
    with sdpa_kernel(SDPBackend.MATH):
        out = F.scaled_dot_product_attention(*leaves, **options)
    out.backward(torch.linspace(-1, 1, out.numel()).view_as(out).to(device, dtype))
    return [out.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves if leaf.grad is not None)]


def distances(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    """In units of the dtype's eps times the largest element; the same mask of its lowest number for both."""
    assert [x.shape for x in found] == [x.shape for x in exact] and len(found) == 4
    eps = torch.finfo(found[0].dtype).eps
    pairs = zip(found, exact, strict=True)
    return [((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-9) / eps).item() for a, b in pairs]


def numbers() -> dict[str, Any]:
    answers = {}
    for name, (shapes, options) in CASES.items():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            found, calls = counted(lambda: attended("mps", dtype, shapes, options))  # noqa: B023 - called at once
            exact = attended("cpu", torch.float64, shapes, with_lowest_of(dtype, options))
            answers[f"{name}, {str(dtype)[6:]}"] = [calls, *distances(found, exact)]
    return answers


def with_lowest_of(dtype: torch.dtype, options: dict[str, Any]) -> dict[str, Any]:
    """A mask as the dtype holds it."""
    mask = options.get("attn_mask")
    if mask is None or mask.dtype is torch.bool:
        return options
    return {**options, "attn_mask": mask.clamp(torch.finfo(dtype).min).to(dtype).double()}


def made() -> list[Tensor]:
    return [torch.randn(1, 2, 6, 4, device="mps").requires_grad_() for _ in range(3)]


def same(given: list[Tensor], run: Callable[[Tensor, Tensor, Tensor], Tensor]) -> bool:
    """Whether what asks in another way gets torch's own, of the CPU."""
    found, calls = counted(lambda: run(*given))
    on_cpu = run(*(x.detach().cpu().requires_grad_() for x in given))
    return calls == 0 and torch.allclose(found.detach().cpu(), on_cpu.detach(), atol=1e-5)


class Own(Tensor):
    """A subclass, which may look at every operator."""


def own_ways() -> dict[str, bool]:
    sdpa = F.scaled_dot_product_attention
    compiled = torch.compile(lambda q, k, v: sdpa(q, k, v), backend="aot_eager")
    given = made()
    with sdpa_kernel(SDPBackend.MATH):
        return {
            "forward mode": same(given, forward_mode),
            "compiled": same(given, compiled),
            "subclass": same(given, lambda q, k, v: sdpa(q.as_subclass(Own), k, v).as_subclass(Tensor)),
            "watched": same(given, counting_flops),
            "no gradient": same([x.detach() for x in given], no_gradient),
            "transformed": not any(transformed()),
        }


def counting_flops(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with FlopCounterMode(display=False) as counter:
        F.scaled_dot_product_attention(q, k, v)
    return torch.tensor(float(counter.get_total_flops()))


def forward_mode(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with forward_ad.dual_level():
        out = F.scaled_dot_product_attention(forward_ad.make_dual(q, v), k, v)
        return forward_ad.unpack_dual(out).tangent


def transformed() -> list[bool]:
    """Whether a tensor within torch.func is plain: the simulated device does not take attention there."""
    found = []

    def look(x: Tensor) -> Tensor:
        found.append(replacement._is_plain(x))
        return x.sum()

    torch.func.grad(look)(torch.ones(2, device="mps"))
    torch.vmap(look)(torch.ones(2, 2, device="mps"))
    torch.func.jvp(look, (torch.ones(2, device="mps"),), (torch.ones(2, device="mps"),))
    return found


def no_gradient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with torch.no_grad():
        return F.scaled_dot_product_attention(q, k, v)


def twice() -> list[float]:
    """How far second derivatives are from float64 on the CPU, and how often they were asked of blocks."""

    def second(device: str, dtype: torch.dtype) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        leaves = [torch.randn(1, 2, 6, 4, generator=generator).to(device, dtype).requires_grad_() for _ in range(3)]
        with sdpa_kernel(SDPBackend.MATH):
            out = F.scaled_dot_product_attention(*leaves, is_causal=True)
        first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        total = torch.stack([x.square().sum() for x in first]).sum()
        return [out.detach().cpu(), *(x.cpu() for x in torch.autograd.grad(total, leaves))]

    found, calls = counted(lambda: second("mps", torch.float32))
    return [calls, *distances(found, second("cpu", torch.float64))]


def errors() -> dict[str, bool]:
    """Whether what torch refuses is refused in the words of torch's own."""
    q = torch.ones(1, 2, 4, 4, device="mps", requires_grad=True)
    two = torch.ones(1, 3, 4, 4, device="mps")
    wrong: dict[str, tuple[Any, ...]] = {
        "mask and causal": (q, q, q, torch.ones(4, 4, dtype=torch.bool, device="mps"), 0.0, True),
        "dtypes": (q, q.half(), q),
        "one dimension": (q[0, 0, 0], q[0, 0, 0], q[0, 0, 0]),
        "heads": (q, two, two),
        "mask that does not fit": (q, q, q, torch.ones(3, 4, device="mps")),
        "dropout": (q, q, q, None, 1.5),
    }

    def words(least: int, args: tuple[Any, ...]) -> str:
        replacement.LEAST_SCORES = least
        try:
            F.scaled_dot_product_attention(*args)
        except RuntimeError as error:
            return str(error)
        finally:
            replacement.LEAST_SCORES = 0
        return ""

    return {name: words(0, args) == words(1 << 60, args) != "" for name, args in wrong.items()}


def dropped() -> dict[str, Any]:
    """Which weights are kept: the values are the unit vectors, the scores all equal."""
    zeros = torch.zeros(1, 2, 64, 8, device="mps")
    eye = torch.eye(64, device="mps").expand(1, 2, 64, 64).clone().requires_grad_()

    def block(values: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(zeros, zeros, values, dropout_p=0.25)

    def drawn(gradients: bool) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        with torch.set_grad_enabled(gradients):
            return block(eye).detach(), torch.rand(3, device="mps")

    (with_gradients, calls), ((without), more) = counted(lambda: drawn(True)), counted(lambda: drawn(False))
    torch.manual_seed(0)
    block(eye)
    second = block(eye).detach()
    answers = {
        "calls": [calls, more],
        "the same without gradients": all(map(torch.equal, with_gradients, without)),
        "another one next": not torch.equal(second, with_gradients[0]),
        "kept": (with_gradients[0] > 0).double().mean().item(),
        "scaled": with_gradients[0].max().item() * 64,
    }
    for reentrant in (False, True):
        eye.grad = None
        out = checkpoint(block, eye, use_reentrant=reentrant)
        out.backward(torch.ones_like(out))
        assert eye.grad is not None
        close = torch.allclose(eye.grad[..., 0], out.detach().sum(-2), rtol=1e-5)
        answers[f"recomputed, reentrant {reentrant}"] = close
    return answers


def peaks() -> list[float]:
    """MiB beyond the arguments, forward and backward, of 1024, 2048 and 4096 tokens and torch's own of 1024."""

    def peak(tokens: int) -> float:
        leaves = [torch.randn(1, 4, tokens, 32, device="mps").requires_grad_() for _ in range(3)]
        grad = torch.ones(1, 4, tokens, 32, device="mps")
        before = torch.mps.current_allocated_memory()
        with Meter(modules=False) as meter:
            F.scaled_dot_product_attention(*leaves, is_causal=True).backward(grad)
        return (meter.usage().peak_bytes - before) / 2**20

    found = [peak(tokens) for tokens in (1024, 2048, 4096)]
    replacement.LEAST_SCORES = 1 << 60
    return [*found, peak(1024)]


def main() -> None:
    warnings.filterwarnings("ignore", "Flop counting")
    answers: dict[str, Any] = {"border": replacement.LEAST_SCORES}
    replacement.LEAST_SCORES = 0
    answers |= {"numbers": numbers(), "own": own_ways(), "errors": errors(), "dropped": dropped(), "twice": twice()}
    replacement.LEAST_SCORES = answers["border"]
    answers["peaks"] = peaks()
    print("ANSWER" + json.dumps(answers))


if __name__ == "__main__":
    main()
