"""Training on the simulated device."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A small language model: embedding, attention, feed-forward, tied head."""

    def __init__(self, vocabulary: int = 23, width: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.norm = nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.final = nn.LayerNorm(width)

    def attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (t.view(batch, length, 2, -1).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        weights = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(
            torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1), float("-inf")
        )
        return x + (weights.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.attend(self.embedding(tokens))
        x = x + self.down(F.dropout(F.silu(self.up(x)), 0.1, self.training))
        return F.linear(self.final(x), self.embedding.weight)


def train(device: str, optimizer: str, steps: int = 20) -> tuple[list[float], list[Tensor]]:
    torch.manual_seed(0)
    model = Block().to(device)
    tokens = torch.randint(0, 23, (4, 12), generator=torch.Generator().manual_seed(1)).to(device)
    if optimizer == "sgd":
        optim: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    else:
        optim = torch.optim.AdamW(model.parameters(), lr=1e-2, **{optimizer: True})
    losses = []
    torch.manual_seed(2)
    for _ in range(steps):
        optim.zero_grad()
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        losses.append(loss.item())
    return losses, [p.detach().cpu() for p in model.parameters()]


@pytest.mark.parametrize("optimizer", ["fused", "foreach", "sgd"])
def test_training_is_that_of_the_cpu(optimizer: str) -> None:
    """Twenty steps with clipping and dropout: every loss and every weight equal to the last bit."""
    losses, weights = train("mps", optimizer)
    expected_losses, expected_weights = train("cpu", optimizer)
    assert losses == expected_losses and losses[-1] < losses[0]
    assert all(torch.equal(a, b) for a, b in zip(weights, expected_weights, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_casts_on_mps_only(dtype: torch.dtype) -> None:
    """`autocast("mps")` runs matmuls in half precision and losses in float32; `autocast("cpu")` does not touch mps."""
    x, w = torch.randn(4, 4, device="mps"), torch.randn(4, 4, device="mps", requires_grad=True)
    with torch.autocast("mps", dtype=dtype):
        y = x @ w
        assert y.dtype == dtype
        assert F.cross_entropy(y, torch.arange(4, device="mps")).dtype == torch.float32
    y.float().sum().backward()
    assert w.grad is not None and w.grad.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ w).dtype == torch.float32
        assert torch.addmm(x, x, w).dtype == torch.float32


def test_grad_scaler_skips_a_step_with_infinities() -> None:
    """GradScaler("mps") unscales, skips a step after inf, and lowers its scale."""
    weight = nn.Parameter(torch.ones(4, device="mps"))
    optim = torch.optim.AdamW([weight], lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("mps", init_scale=8.0)
    scaler.scale((weight * 2).sum()).backward()
    scaler.unscale_(optim)
    assert weight.grad is not None and weight.grad.tolist() == [2.0] * 4
    scaler.step(optim)
    scaler.update()
    stepped = weight.detach().clone()
    assert not torch.equal(stepped, torch.ones(4, device="mps")) and scaler.get_scale() == 8.0
    optim.zero_grad()
    scaler.scale((weight * float("inf")).sum()).backward()
    scaler.step(optim)
    scaler.update()
    assert torch.equal(weight.detach(), stepped) and scaler.get_scale() == 4.0


def test_checkpointing_gives_the_same_gradients() -> None:
    """Recomputation in the backward works, with and without reentrance."""
    from torch.utils.checkpoint import checkpoint

    gradients = []
    for mode in (None, True, False):
        torch.manual_seed(0)
        layer, x = nn.Linear(4, 4).to("mps"), torch.ones(2, 4, device="mps", requires_grad=True)
        block = nn.Sequential(layer, nn.Tanh())
        out = block(x) if mode is None else checkpoint(block, x, use_reentrant=mode)
        out.sum().backward()
        gradients.append(layer.weight.grad)
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])


def test_backward_from_several_threads() -> None:
    """Threads that train at once do not disturb each other."""
    results: dict[int, list[float]] = {}

    def work(number: int) -> None:
        weight = torch.full((8,), float(number), device="mps", requires_grad=True)
        for _ in range(50):
            (weight * weight).sum().backward()
        assert weight.grad is not None
        results[number] = weight.grad.tolist()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [100.0 * number] * 8 for number in range(4)}


def test_hooks_double_backward_and_custom_functions() -> None:
    """The rest of autograd: tensor hooks, gradients of gradients, user-defined functions."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return 3 * x**2 * grad

    x = torch.tensor([2.0, 3.0], device="mps", requires_grad=True)
    seen: list[str] = []
    x.register_hook(lambda grad: seen.append(grad.device.type))
    (first,) = torch.autograd.grad(Cube.apply(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert first.tolist() == [12.0, 27.0] and second.tolist() == [12.0, 18.0] and "mps" in seen
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y = x * 2
        z = (y * y).sum()
        y.add_(1)
        z.backward()
