"""Asks Unsloth's attention on the simulated Mac, and upstream's own on the CPU in float64; prints how far they differ.

    python -m tests.changes.unsloth.attended

The answer has, for each case, the differences of the output and of the three gradients in units of fp32's eps times the
largest element; the bytes that forwards of 8192 tokens hold at most beyond their arguments; what Gemma 2 is told.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")

import unsloth  # noqa: F401

# isort: split
import torch
from torch import Tensor
from unsloth.models import gemma2, llama
from unsloth.utils import attention_dispatch as upstream

from patcher.engine.ledger import LEDGER
from patcher.simulator.meter import Meter
from tests.parity import EPS

HEADS, KV_HEADS, HEAD = 4, 2, 16
LENGTHS = (5, 40, 1, 50)
SCALE, SOFTCAP = 0.3, 2.0


def config(**asked: Any) -> Any:
    return upstream.AttentionConfig(backend=upstream.SDPA, n_kv_heads=KV_HEADS, n_groups=HEADS // KV_HEADS, **asked)


def context(batch: int, tokens: int, **more: Any) -> Any:
    return upstream.AttentionContext(
        bsz=batch, q_len=tokens, kv_seq_len=tokens, n_heads=HEADS, head_dim=HEAD, requires_grad=True,
        **{"seq_info": None, "attention_mask": None, "causal_mask": None, **more},
    )  # fmt: skip


def packed(*lengths: int) -> tuple[Tensor, Tensor, int]:
    counts = torch.tensor(lengths, dtype=torch.int32)
    return counts, torch.nn.functional.pad(counts.cumsum(0, dtype=torch.int32), (1, 0)), max(lengths)


def padding(side: str) -> Tensor:
    """Of two rows the second has 9 tokens of padding."""
    mask = torch.ones(2, 96, dtype=torch.long)
    mask[1, slice(0, 9) if side == "left" else slice(87, 96)] = 0
    return mask


CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "plain": (2, {}, {}),
    "packed": (1, {}, {"seq_info": packed(*LENGTHS)}),
    "packed with a padded tail": (1, {}, {"seq_info": packed(*LENGTHS[:2])}),
    "packed, scaled": (1, {"sdpa_kwargs": {"scale": SCALE}}, {"seq_info": packed(*LENGTHS)}),
    "packed with a window": (1, {}, {"seq_info": packed(*LENGTHS), "sliding_window": 7}),
    "packed, seeing ahead": (1, {}, {"seq_info": packed(*LENGTHS), "is_causal": False}),
    "window": (2, {}, {"sliding_window": 7}),
    "wide window": (2, {}, {"sliding_window": 400}),
    "padded on the left": (2, {}, {"attention_mask": padding("left")}),
    "padded on the right": (2, {}, {"attention_mask": padding("right")}),
    "padded, with a window": (2, {}, {"attention_mask": padding("right"), "sliding_window": 7}),
}


def run(device: str, dtype: torch.dtype, batch: int, asked: dict[str, Any], given: dict[str, Any]) -> list[Tensor]:
    """Output and gradients of what is real; what padding gives is nobody's business."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, heads, 96, HEAD) for heads in (HEADS, KV_HEADS, KV_HEADS))
    leaves = [torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes]
    mask = given.get("attention_mask")
    real = torch.ones(batch, 96) if mask is None else mask
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in given.items()}
    if "seq_info" in given:
        lengths, starts, longest = given["seq_info"]
        moved["seq_info"] = lengths.to(device), starts.to(device), longest
    out = upstream.run_attention(
        config=config(**asked), context=context(batch, 96, **moved), Q=leaves[0], K=leaves[1], V=leaves[2]
    )
    kept = out * real.to(device, dtype)[..., None, None]
    kept.backward(torch.linspace(-1, 1, out.numel()).view_as(out).to(device, dtype))
    return [kept.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves if leaf.grad is not None)]


def softcapped(window: int | None) -> list[list[Tensor]]:
    """Gemma 2's, as flash-attn is asked for it, and by the function that upstream has without flash-attn."""
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(2, heads, 96, HEAD, generator=generator) for heads in (HEADS, KV_HEADS, KV_HEADS)]
    asked = {"causal": True, "softcap": SOFTCAP, "softmax_scale": HEAD**-0.5}
    asked["window_size"] = (-1, -1) if window is None else (window - 1, 0)
    found = []
    for device, dtype in (("mps", torch.float32), ("cpu", torch.float64)):
        leaves = [tensor.to(device, dtype).requires_grad_() for tensor in given]
        if device == "mps":
            # What Gemma 2 says of windows in the context holds for half of its layers only.
            out = upstream.run_attention(
                config=config(flash_dense_kwargs=asked), context=context(2, 96, sliding_window=7),
                Q=leaves[0], K=leaves[1], V=leaves[2],
            ).flatten(2)  # fmt: skip
        else:
            at = torch.arange(96)
            hidden = at > at[:, None] if window is None else (at > at[:, None]) | (at <= at[:, None] - window)
            mask = torch.zeros(96, 96, dtype=dtype).masked_fill(hidden, -torch.inf)
            names = SimpleNamespace(query_pre_attn_scalar=HEAD, attn_logit_softcapping=SOFTCAP)
            names.num_attention_heads, names.num_key_value_heads = HEADS, KV_HEADS
            layer = SimpleNamespace(config=names, head_dim=HEAD, num_key_value_groups=HEADS // KV_HEADS)
            own = LEDGER.original("unsloth.kernels.flex_attention:slow_attention_softcapping")
            out = own(*leaves, mask, layer, 2, 96)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out).to(device, dtype))
        found.append([out.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves if leaf.grad is not None)])
    return found


def distances(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    assert len(found) == len(exact) == 4
    eps = EPS[torch.float32]
    return [((a.double() - b).abs().max() / b.abs().max() / eps).item() for a, b in zip(found, exact, strict=True)]


def held(**given: Any) -> int:
    """By a forward without gradients of 8192 tokens and one head of 16."""
    q, k, v = (torch.zeros(1, 1, 8192, HEAD, device="mps") for _ in range(3))
    one = upstream.AttentionConfig(backend=upstream.SDPA, n_kv_heads=1, n_groups=1)
    before = torch.mps.current_allocated_memory()
    with torch.no_grad(), Meter(modules=False) as meter:
        upstream.run_attention(config=one, context=context(1, 8192, **given), Q=q, K=k, V=v)
    return meter.usage().peak_bytes - before


def main() -> None:
    lengths, starts, longest = packed(*[512] * 8)
    long = {
        "packed": held(seq_info=(lengths.to("mps"), starts.to("mps"), longest)),
        "window": held(sliding_window=64),
        "padded": held(attention_mask=torch.ones(1, 8192, dtype=torch.long, device="mps")),
    }
    answers = {
        name: distances(run("mps", torch.float32, *case), run("cpu", torch.float64, *case))
        for name, case in CASES.items()
    }
    answers |= {
        f"softcapped{'' if window is None else ' with a window'}": distances(*softcapped(window))
        for window in (None, 7)
    }
    told = [module.HAS_FLASH_ATTENTION_SOFTCAPPING for module in (llama, gemma2)]
    others = upstream.HAS_FLASH_ATTENTION
    print("ANSWER" + json.dumps({"distances": answers, "held": long, "softcapping": told, "others": others}))


if __name__ == "__main__":
    main()
