"""scaled_dot_product_attention on the simulated device: the maths that a Mac runs under autograd."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

CASES: dict[str, dict[str, object]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "bool mask": {"attn_mask": torch.ones(5, 7, dtype=torch.bool).tril(2)},
    "float mask": {"attn_mask": torch.linspace(-1, 1, 35).view(5, 7)},
    "masked row": {"attn_mask": torch.ones(5, 7, dtype=torch.bool).index_fill(0, torch.tensor(1), False)},
    "grouped": {"enable_gqa": True},
    "dropout": {"dropout_p": 0.3},
}


def run(device: str, dtype: torch.dtype, options: dict[str, object]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    heads = 2 if options.get("enable_gqa") else 4
    shapes = (2, 4, 5, 8), (2, heads, 7, 8), (2, heads, 7, 8)
    q, k, v = (torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes)
    options = {name: o.to(device) if isinstance(o, torch.Tensor) else o for name, o in options.items()}
    torch.manual_seed(1)
    with sdpa_kernel(SDPBackend.MATH):
        out = F.scaled_dot_product_attention(q, k, v, **options)
    out.float().square().sum().backward()
    return [t.detach().cpu() for t in (out, q.grad, k.grad, v.grad)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_forward_and_gradients_are_the_cpus(options: dict[str, object], dtype: torch.dtype) -> None:
    """Same kernels, same order: equal to the last bit, the dropout mask included."""
    for result, expected in zip(run("mps", dtype, options), run("cpu", dtype, options), strict=True):
        assert torch.equal(result, expected)


def test_wrong_arguments_are_refused() -> None:
    """A mask together with is_causal, and mixed dtypes, raise as on other devices."""
    q = torch.ones(1, 1, 2, 4, device="mps")
    with pytest.raises(RuntimeError, match="Explicit attn_mask should not be set when is_causal=True"):
        F.scaled_dot_product_attention(q, q, q, attn_mask=torch.ones(2, 2, device="mps"), is_causal=True)
    with pytest.raises(RuntimeError, match="same dtype"):
        F.scaled_dot_product_attention(q, q.half(), q)


def test_attention_module_and_no_grad() -> None:
    """nn.MultiheadAttention runs with and without autograd."""
    module = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(1, 3, 8)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        expected = module(x, x, x, need_weights=False)[0]
        result = module.to("mps")(x.to("mps"), x.to("mps"), x.to("mps"), need_weights=False)[0]
    assert torch.equal(result.cpu(), expected)
