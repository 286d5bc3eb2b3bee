"""torch.compile on the simulated device: Inductor's Metal kernels, forward and backward, equal eager CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch._dynamo
import torch._inductor.config

from tests.simulator.metal.training_ops import CASES, Case, attention, rms_norm, rope, swiglu, worst

pytestmark = pytest.mark.filterwarnings("ignore")
QUICK = {"rms_norm_bf16", "cross_entropy_ignored_bf16", "rope", "softmax_dynamic"}


@pytest.fixture(autouse=True)
def fresh_inductor() -> Iterator[None]:
    """Inductor generates its kernels anew: its own cache would hide the shader."""
    with torch._inductor.config.patch(force_disable_caches=True):
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=() if case.name in QUICK else pytest.mark.slow) for case in CASES],
)
def test_compiled_equals_eager(case: Case) -> None:
    """Result and gradients of a compiled function; the tolerances are explained in training_ops.py."""
    assert worst(case) <= case.tolerance


def test_the_kernels_are_metal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ran came from Inductor as Metal source, and not from a fallback to eager."""
    sources: list[str] = []
    compile_shader = torch._C._mps_compileShader  # type: ignore[attr-defined]

    def recording(source: str) -> object:
        sources.append(source)
        return compile_shader(source)

    monkeypatch.setattr(torch._C, "_mps_compileShader", recording)
    torch._dynamo.reset()
    x = torch.arange(8.0, device="mps")
    assert torch.compile(lambda x: torch.sin(x) * 2)(x).tolist() == (torch.sin(x) * 2).tolist()
    assert len(sources) == 1 and "kernel void" in sources[0] and "metal::" in sources[0]


def test_one_graph_for_many_shapes() -> None:
    """With dynamic shapes, other sizes run the kernels that are there."""
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: torch.softmax(x * 2, -1), dynamic=True)
    counts = []
    for rows, columns in ((3, 40), (5, 1500), (2, 7)):
        x = torch.randn(rows, columns)
        torch.testing.assert_close(compiled(x.to("mps")).cpu(), torch.softmax(x * 2, -1), rtol=1e-5, atol=1e-7)
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counts[0] == counts[-1]


def test_dropout_drops_half() -> None:
    """Random numbers come from the kernel: half of the values are gone, the others doubled, differently every time."""
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: torch.nn.functional.dropout(x, 0.5))
    first, second = (compiled(torch.ones(10000, device="mps")) for _ in range(2))
    assert set(first.tolist()) == {0.0, 2.0}
    assert abs((first > 0).float().mean().item() - 0.5) < 5 * 0.5 / 100  # five standard errors
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_maxima_of_long_are_wrong_as_they_are_on_a_mac() -> None:
    """torch 2.13's ``simd_max<long>`` reads lanes that are not there, which are zero (pytorch#191104); int is right."""
    x = -torch.arange(1, 101, device="mps")
    assert torch.compile(torch.amax)(x).item() == 0
    assert torch.compile(torch.amax)(x.int()).item() == -1


class Block(torch.nn.Module):
    """A small decoder: embedding, attention with RoPE, SwiGLU, norms, tied head."""

    def __init__(self, width: int = 32, vocabulary: int = 50) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, width)
        self.qkv = torch.nn.Linear(width, 3 * width, bias=False)
        self.gate_up = torch.nn.Linear(width, 4 * width, bias=False)
        self.down = torch.nn.Linear(2 * width, width, bias=False)
        self.norms = torch.nn.ParameterList(torch.ones(width) for _ in range(3))
        angles = torch.arange(64)[:, None] / 100 ** (torch.arange(width // 4) / (width // 4))
        self.register_buffer("angles", torch.cat([angles, angles], -1))

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        cos, sin = self.angles.cos()[: x.shape[1]], self.angles.sin()[: x.shape[1]]
        heads = self.qkv(rms_norm(x, self.norms[0])).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = attention(rope(heads[0], cos, sin), rope(heads[1], cos, sin), heads[2])
        x = x + mixed.transpose(1, 2).flatten(2)
        gate, up = self.gate_up(rms_norm(x, self.norms[1])).chunk(2, -1)
        x = x + self.down(swiglu(gate, up))
        logits = rms_norm(x, self.norms[2]) @ self.embedding.weight.T
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


@pytest.mark.slow
def test_a_compiled_model_trains_as_an_eager_one() -> None:
    """Four steps of AdamW with changing lengths: the losses are those of eager CPU."""
    losses = []
    for device in ("cpu", "mps"):
        torch.manual_seed(0)
        torch._dynamo.reset()
        model = Block().to(device)
        step = torch.compile(model) if device == "mps" else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for length in (16, 16, 21, 9):
            tokens = torch.randint(0, 50, (2, length + 1), generator=torch.Generator().manual_seed(length)).to(device)
            loss = step(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    # float32 throughout; AdamW's first steps have the size of lr whatever the gradient, so that errors do not grow much
    assert losses[4:] == pytest.approx(losses[:4], rel=1e-4)
    assert losses[1] < losses[0]
