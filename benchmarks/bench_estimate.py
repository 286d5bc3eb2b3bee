"""How far the estimated times are from published measurements on Macs.

    python benchmarks/bench_estimate.py [NAME ...]

Each workload is run on the simulated device at its true width and length. A deep model is run with one layer and with
two, a large batch with two rows and with three: the difference is what each further layer or row costs. Prints a
Markdown table: published, estimated, error. The estimate is of torch on mps. Where another program was measured
(llama.cpp, MLX), the error holds the difference between the programs as well.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from patcher.simulator import start
from patcher.simulator.estimate import estimate
from patcher.simulator.meter import Meter
from patcher.simulator.usage import Copies, Counts, Row, Usage

Program = Callable[[], object]
MLX = "https://github.com/ml-explore/mlx-examples"
LLAMA_CPP = "https://github.com/ggml-org/llama.cpp"
OPS = "https://github.com/TristanBilot/mlx-benchmark"
MATMUL = "https://github.com/zzc0721/torch-performance-test-data"
BERT = "https://github.com/lucadiliello/pytorch-apple-silicon-benchmarks"


@dataclass(frozen=True)
class Published:
    """A measurement.

    Attributes:
        mac: for `patcher.macs.mac.parse`.
        value: in `unit`.
        program: what was measured: "torch", with its version where it is known, or another program.
        calibrates: an assumption of the estimate rests on it, so that its error proves nothing.
    """

    mac: str
    value: float
    program: str
    source: str
    calibrates: bool = False


@dataclass(frozen=True)
class Workload:
    """A program, and what others have measured of it.

    Attributes:
        unit: "ms", or something per second.
        amount: how many of these one run makes.
        usage: what one run uses.
        published: measurements.
    """

    name: str
    unit: str
    amount: float
    usage: Callable[[], Usage]
    published: tuple[Published, ...]


# ---- usage of a large model, from small ones ----------------------------------------------------------------------

FEW = (2, 3)
"""Rows of a batch that are run for larger ones. One row would hide copies that a Mac makes."""


def metered(program: Program) -> Usage:
    with Meter(modules=False) as meter:
        program()
    return meter.usage()


def deep(build: Callable[[int], Program], layers: int) -> Usage:
    """What the program uses with so many layers, from one and two."""
    return enlarged(metered(build(1)), metered(build(2)), layers - 1)


def deep_and_wide(build: Callable[[int, int], Program], layers: int, batch: int) -> Usage:
    """The same for so many layers and rows: bytes and FLOPs grow with each of the two in proportion."""
    one, two = (
        enlarged(metered(build(count, FEW[0])), metered(build(count, FEW[1])), batch - FEW[0]) for count in (1, 2)
    )
    return enlarged(one, two, layers - 1)


def enlarged(one: Usage, two: Usage, times: int) -> Usage:
    """`one`, and so many times what `two` has more."""
    rows = {_key(row): row for row in (*one.rows, *two.rows)}
    first, second = (_sums(usage) for usage in (one, two))
    grown = []
    for key, row in rows.items():
        base, more = first.get(key, Counts()), second.get(key, Counts())
        pairs = zip(_tuple(base), _tuple(more - base), strict=True)
        grown.append(replace(row, counts=Counts(*(start + times * each for start, each in pairs))))
    total = sum((row.counts for row in grown), Counts())
    waits = one.synchronizations + times * (two.synchronizations - one.synchronizations)
    return replace(two, **_fields(total), synchronizations=waits, rows=tuple(grown), step_rows=(), steps=())


def _sums(usage: Usage) -> dict[tuple[str, str, str], Counts]:
    sums: dict[tuple[str, str, str], Counts] = {}
    for row in usage.rows:
        sums[_key(row)] = sums.get(_key(row), Counts()) + row.counts
    return sums


def _key(row: Row) -> tuple[str, str, str]:
    return row.op, row.phase, row.arithmetic


def _tuple(counts: Counts) -> tuple[int, int, int, int]:
    return counts.dispatches, counts.bytes_read, counts.bytes_written, counts.flops


def _fields(counts: Counts) -> dict[str, int]:
    return dict(zip(("dispatches", "bytes_read", "bytes_written", "flops"), _tuple(counts), strict=True))


def synchronised(usage: Usage) -> Usage:
    """With one wait at the end, as whoever measures a single operation does."""
    return replace(usage, synchronizations=1, copies=Copies())


# ---- programs -----------------------------------------------------------------------------------------------------


def mps(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(shape, device="mps", dtype=dtype)


def llama7b(layers: int, dtype: torch.dtype) -> LlamaForCausalLM:
    config = LlamaConfig(num_hidden_layers=layers, attn_implementation="sdpa")
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    model = model.to_empty(device="mps").eval()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(0.01)
    return model


def prompt(layers: int) -> Program:
    model, ids = llama7b(layers, torch.float16), torch.ones(1, 512, device="mps", dtype=torch.int64)

    def run() -> None:
        with torch.no_grad():
            model(ids, use_cache=False, logits_to_keep=1)

    return run


def decoding(layers: int) -> Program:
    """One token after 64, the middle of 128."""
    model = llama7b(layers, torch.float16)
    with torch.no_grad():
        cache = model(torch.ones(1, 64, device="mps", dtype=torch.int64), use_cache=True).past_key_values
    token = torch.ones(1, 1, device="mps", dtype=torch.int64)

    def run() -> None:
        with torch.no_grad():
            model(token, past_key_values=cache, use_cache=True)
        cache.crop(-1)

    return run


def small_llama(layers: int, batch: int, autocast: bool) -> Program:
    """MiniMind: 512 wide, 8 heads of 64, 4 of them for keys, norms of queries and keys, 6400 words, tied."""
    config = Qwen3Config(
        vocab_size=6400,
        hidden_size=512,
        intermediate_size=1664,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config).to("mps")
    optimizer = torch.optim.AdamW(model.parameters())
    ids = torch.ones(batch, 512, device="mps", dtype=torch.int64)

    def run() -> None:
        with torch.autocast("mps", torch.bfloat16, enabled=autocast):
            loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


class Block(torch.nn.Module):
    """Of MLX's transformer_lm example: norm first, ReLU, materialised attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (torch.nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k, v = (part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + mask
        x = x + self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(self.norm2(x))))


def transformer_lm(layers: int) -> Program:
    """Its defaults: 1024 wide, 16 heads, context 1024, batch 2, 10,000 words, SGD, fp32."""
    embedding = torch.nn.Embedding(10000, 1024).to("mps")
    blocks = torch.nn.ModuleList(Block(1024, 16) for _ in range(layers)).to("mps")
    head = torch.nn.Linear(1024, 10000).to("mps")
    optimizer = torch.optim.SGD([*embedding.parameters(), *blocks.parameters(), *head.parameters()], 1e-3)
    mask = torch.full((1024, 1024), -1e9, device="mps").triu(1)
    ids, positions = torch.ones(2, 1024, device="mps", dtype=torch.int64), mps(1024, 1024)

    def run() -> None:
        x = embedding(ids) + positions
        for block in blocks:
            x = block(x, mask)
        loss = F.cross_entropy(head(x).flatten(0, 1), ids.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return run


def bert(layers: int, batch: int, training: bool) -> Program:
    """bert-base with rows of 128 tokens."""
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=layers)).to("mps")
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    ids, labels = (torch.ones(*shape, device="mps", dtype=torch.int64) for shape in ((batch, 128), (batch,)))

    def run() -> None:
        with torch.set_grad_enabled(training):
            loss = model(ids, labels=labels).loss
        if training:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return run


def product(size: int, dtype: torch.dtype) -> Usage:
    """Of two square matrices; its FLOPs are arithmetic, so a small one is run and enlarged."""
    small = 64
    usage = synchronised(metered(lambda: mps(small, small, dtype=dtype) @ mps(small, small, dtype=dtype)))
    rows = [row for row in usage.rows if row.op == "aten::mm"]
    area = (size // small) ** 2
    counts = rows[0].counts
    large = Counts(1, counts.bytes_read * area, counts.bytes_written * area, counts.flops * area * (size // small))
    return replace(usage, **_fields(large), synchronizations=0, rows=(replace(rows[0], counts=large),))


def _eightfold(counts: Counts) -> Counts:
    return Counts(counts.dispatches, 8 * counts.bytes_read, 8 * counts.bytes_written, 8 * counts.flops)


def operation(name: str) -> Usage:
    """Operations of mlx-benchmark in fp32, run at an eighth of their rows and multiplied."""
    x = mps(8, 128, 1024)
    left, right = mps(125000, 64), mps(125000, 64)
    scores = mps(16, 16, 32, 1024)
    programs: dict[str, Program] = {
        "relu": lambda: F.relu(x),
        "sigmoid": lambda: torch.sigmoid(x),
        "cat": lambda: torch.cat([left, right]),
        "softmax": lambda: scores.softmax(-1),
        "sum": lambda: mps(8, 128, 128, 128).sum(3),
        "linear": lambda: F.linear(mps(12800, 512), mps(1024, 512), mps(1024)),
    }
    usage = metered(programs[name])
    rows = [row for row in usage.rows if not row.op.startswith("aten::fill_")]
    rows = [replace(row, counts=_eightfold(row.counts)) for row in rows]
    total = sum((row.counts for row in rows), Counts())
    return synchronised(replace(usage, **_fields(total), rows=tuple(rows)))


# ---- what was published -------------------------------------------------------------------------------------------

OPS_M3, OPS_M1 = "M3 Max 48GB", "M1 8GB"


def ops(name: str, m3_max: float, m1: float, calibrates: bool = False) -> Workload:
    return Workload(
        f"{name} (one operation, waited for)",
        "ms",
        1,
        lambda: operation(name),
        (
            Published(OPS_M3, m3_max, "torch", OPS, calibrates),
            Published(OPS_M1, m1, "torch", OPS, calibrates),
        ),
    )


WORKLOADS = {
    "cat": ops("cat", 3.20, 17.58, True),
    "relu": ops("relu", 1.06, 1.60),
    "sigmoid": ops("sigmoid", 0.63, 1.64),
    "softmax": ops("softmax", 4.37, 31.50),
    "sum": ops("sum", 2.62, 13.21),
    "linear": ops("linear", 10.49, 153.90),
    "matmul-fp32": Workload(
        "4096 x 4096 matrix product, fp32",
        "TFLOPS",
        2 * 4096**3 / 1e12,
        lambda: product(4096, torch.float32),
        (
            Published("M1 Pro 32GB", 4.28, "torch 2.7", f"{MATMUL}/issues/191", True),
            Published("M4 Max 64GB", 13.78, "torch 2.8", f"{MATMUL}/issues/65", True),
            Published("M4 Max 64GB", 13.35, "torch", "https://github.com/chsasank/device-benchmarks/pull/13"),
        ),
    ),
    "matmul-bf16": Workload(
        "4096 x 4096 matrix product, bf16",
        "TFLOPS",
        2 * 4096**3 / 1e12,
        lambda: product(4096, torch.bfloat16),
        (
            Published("M1 Pro 32GB", 2.25, "torch 2.7", f"{MATMUL}/issues/191", True),
            Published("M4 Max 64GB", 12.51, "torch 2.8", f"{MATMUL}/issues/65"),
            Published("M3 Ultra 60-core 96GB", 18.8, "MPSGraph", "https://github.com/ml-explore/mlx/issues/3196"),
        ),
    ),
    "minimind-fp32": Workload(
        "MiniMind 26M, training, 16 x 512 tokens, fp32",
        "tokens/s",
        16 * 512,
        lambda: deep_and_wide(lambda layers, batch: small_llama(layers, batch, autocast=False), 8, 16),
        (Published("M5 Pro 24GB", 11784, "torch", "https://github.com/jingyaogong/minimind/pull/852"),),
    ),
    "minimind-bf16": Workload(
        "the same with autocast to bf16",
        "tokens/s",
        16 * 512,
        lambda: deep_and_wide(lambda layers, batch: small_llama(layers, batch, autocast=True), 8, 16),
        (Published("M5 Pro 24GB", 15492, "torch", "https://github.com/jingyaogong/minimind/pull/852"),),
    ),
    "bert-inference": Workload(
        "bert-base, inference, 64 x 128 tokens, fp32",
        "steps/s",
        1,
        lambda: deep_and_wide(lambda layers, batch: bert(layers, batch, training=False), 12, 64),
        (Published("M1 Max 32GB", 100 / 30.98, "torch 1.13.dev", f"{BERT}/issues/4"),),
    ),
    "bert-training": Workload(
        "bert-base, training, 64 x 128 tokens, fp32",
        "steps/s",
        1,
        lambda: deep_and_wide(lambda layers, batch: bert(layers, batch, training=True), 12, 64),
        (Published("M1 Max 32GB", 100 / 111.21, "torch 1.13.dev", f"{BERT}/issues/4"),),
    ),
    "decoding": Workload(
        "Llama 7B, one token, fp16",
        "tokens/s",
        1,
        lambda: deep(decoding, 32),
        (
            Published("M1 Pro 14-core 16GB", 12.75, "llama.cpp", f"{LLAMA_CPP}/discussions/4167"),
            Published("M3 Pro 36GB", 9.89, "llama.cpp", f"{LLAMA_CPP}/discussions/4167"),
        ),
    ),
    "prompt": Workload(
        "Llama 7B, prompt of 512 tokens, fp16",
        "tokens/s",
        512,
        lambda: deep(prompt, 32),
        (
            Published("M1 Pro 14-core 16GB", 262.65, "llama.cpp", f"{LLAMA_CPP}/discussions/4167"),
            Published("M3 Pro 36GB", 357.45, "llama.cpp", f"{LLAMA_CPP}/discussions/4167"),
            Published("M2 Ultra 192GB", 1265.30, "llama.cpp", f"{LLAMA_CPP}/pull/3084"),
        ),
    ),
    "transformer_lm": Workload(
        "MLX's transformer_lm 162M, training, 2 x 1024 tokens, fp32",
        "steps/s",
        1,
        lambda: deep(transformer_lm, 12),
        (
            Published("M1 Pro 32GB", 1.0, "MLX", f"{MLX}/issues/127"),
            Published("M2 Pro 32GB", 1.4, "MLX", f"{MLX}/issues/127"),
            Published("M2 Max 64GB", 2.0, "MLX", f"{MLX}/issues/127"),
            Published("M3 Max 128GB", 2.9, "MLX", f"{MLX}/issues/127"),
            Published("M1 Ultra 64GB", 4.0, "MLX", f"{MLX}/issues/127"),
        ),
    ),
}


def main(names: list[str]) -> None:
    start("M3 Max 128GB")
    torch.manual_seed(0)
    print("| workload | Mac | program | published | estimated | error |\n|---|---|---|---|---|---|")
    errors: dict[str, list[float]] = {}
    for name in names or WORKLOADS:
        workload = WORKLOADS[name]
        usage = workload.usage()
        for figure in workload.published:
            seconds = estimate(usage, figure.mac).seconds
            value = seconds * 1e3 if workload.unit == "ms" else workload.amount / seconds
            # Positive: the Mac is slower than estimated.
            error = (figure.value / value if workload.unit == "ms" else value / figure.value) - 1
            kind = "calibration" if figure.calibrates else figure.program.split()[0]
            errors.setdefault(kind, []).append(error)
            mark = " *" if figure.calibrates else ""
            print(
                f"| {workload.name} | {figure.mac} | [{figure.program}]({figure.source}){mark} |"
                f" {figure.value:.3g} {workload.unit} | {value:.3g} | {error:+.0%} |",
                flush=True,
            )
    for kind, found in errors.items():
        middle = statistics.median(abs(error) for error in found)
        print(f"{kind}: {len(found)} figures, from {min(found):+.0%} to {max(found):+.0%}, median {middle:.0%}")


if __name__ == "__main__":
    main(sys.argv[1:])
