"""The known silent bugs of PyTorch's mps backend, switched on one by one on the simulated device.

    with inject("matmul-long-sum"):
        a @ b                   # wrong, as on an M1 with torch 2.13

None is on by default. `FAULTS` says of each what goes wrong, where, since when, and which of our changes answers it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from patcher import environment
from patcher.errors import InvalidSwitch, SimulatorUnavailable, compose
from patcher.simulator.device import running

VARIABLE = "PATCHER_SIMULATE_FAULTS"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One bug.

    Attributes:
        name: what `inject` and ``PATCHER_SIMULATE_FAULTS`` call it.
        wrong: what goes wrong, and for which arguments.
        affects: torch versions, and chips or macOS versions where not all are affected.
        upstream: where it was reported or mended.
        guard: the change of ours that keeps training right, as the report names it; None where there is none.
        reason: why there is no guard, or what the guard does.
        probe: the check of ``verify_apple.py`` that looks for it on a real Mac; None where there is none.
        size: the length, count or number of elements from which (for counts of elements: beyond which) it shows;
            0 where it shows at every size.
        inherent: it is there on the simulated Mac without being switched on: it is in torch's own Python code, or what
            every Mac does. `inject` accepts its name and changes nothing.
    """

    name: str
    wrong: str
    affects: str
    upstream: str
    guard: str | None
    reason: str
    probe: str | None
    size: int = 0
    inherent: bool = False


_LIST = (
    Fault(
        name="matmul-long-sum",
        wrong="products whose sums run over 32767 or more terms, both sides of the result at least 16, add what lies "
        "in memory behind their operands",
        affects="M1 and M2; torch up to 2.13, in 2.14 still bmm, baddbmm and addbmm, and all at 32767 and 32768 terms",
        upstream="pytorch#177116, #193487, #195163",
        guard="aten::mm on MPS",
        reason="sums are split; so are those of addmm, bmm, baddbmm, addbmm and linear",
        probe="sums over 32767 elements",
        size=32767,
    ),
    Fault(
        name="late-copy",
        wrong="a non_blocking copy from the CPU reads its source when the GPU comes to it: changed or freed by then",
        affects="torch 2.5.1 and later",
        upstream="pytorch#139550, #189690",
        guard="torch:Tensor.to",
        reason="copies to and from mps wait; so do Tensor.copy_ and Tensor.cuda",
        probe="non-blocking copy",
    ),
    Fault(
        name="causal-leak",
        wrong="attention with is_causal in fp16 and bf16 looks at its mask once for four queries: up to three later "
        "tokens are seen",
        affects="torch up to 2.12.1",
        upstream="pytorch#195910",
        guard=None,
        reason="mended before torch 2.13, the oldest that is supported",
        probe="causal attention",
    ),
    Fault(
        name="strided-attention",
        wrong="attention on permuted q, k or v reads them as if they were contiguous",
        affects="torch 2.8 to 2.10",
        upstream="pytorch#163597, #174861, #181133",
        guard=None,
        reason="mended before torch 2.13, the oldest that is supported",
        probe="strided attention",
    ),
    Fault(
        name="padded-row-nan",
        wrong="attention in fp16 gives NaN for a row that sees nothing, and 0 times NaN reaches the other rows",
        affects="torch up to 2.10",
        upstream="pytorch#156707, #157727",
        guard=None,
        reason="mended before torch 2.13, the oldest that is supported",
        probe="padded rows",
    ),
    Fault(
        name="bmm-large-output",
        wrong="bmm with an operand of more than 2^32 elements reads the beginning for what lies beyond, as in the "
        "gradient of a product so large and in softmax(QK) @ V; so is a result of that size written where an operand "
        "is not contiguous",
        affects="all torch versions",
        upstream="pytorch#197636",
        guard="aten::bmm on MPS",
        reason="the batch is split",
        probe=None,
        size=2**32,
    ),
    Fault(
        name="baddbmm-beta-zero",
        wrong="baddbmm with beta=0 lets NaN through from what it is to ignore, such as torch.empty",
        affects="torch up to 2.13",
        upstream="pytorch#187521, #194442",
        guard="aten::baddbmm on MPS",
        reason="with beta=0 zeros take its place",
        probe="baddbmm with beta=0",
    ),
    Fault(
        name="linear-many-rows",
        wrong="a linear layer with a bias on a contiguous input of 3 or more dimensions, the third last longer than "
        "65536: row 65536 + n is written to row n",
        affects="torch 2.12 to 2.13",
        upstream="pytorch#189495",
        guard="aten::linear on MPS",
        reason="the input is flattened to two dimensions, which costs nothing",
        probe="linear on 65536 rows",
        size=65536,
    ),
    Fault(
        name="linear-dropped-bias",
        wrong="a linear layer on single rows, as when a token is generated, forgets its bias",
        affects="M1 with macOS 26; torch 2.14 development versions, perhaps earlier",
        upstream="pytorch#188438, #188619",
        guard="aten::linear on MPS",
        reason="to a single row the bias is added afterwards",
        probe="small linear layers",
    ),
    Fault(
        name="linear-half-batched",
        wrong="a linear layer without bias in fp16 or bf16 gives other numbers with every call for inputs of 3 or more "
        "dimensions",
        affects="M5; torch up to 2.12",
        upstream="pytorch#180776, #181466",
        guard="aten::linear on MPS",
        reason="the input is flattened to two dimensions",
        probe="linear layers in half precision",
    ),
    Fault(
        name="linear-transposed-bf16",
        wrong="a linear layer with a transposed bf16 weight and 3-D input aborts the process (here: RuntimeError)",
        affects="macOS 27; torch 2.13 to 2.14",
        upstream="pytorch#197796",
        guard="aten::linear on MPS",
        reason="the input is flattened to two dimensions",
        probe="transposed bf16 weight",
    ),
    Fault(
        name="reduction-large-input",
        wrong="argmax, argmin, any and all over more than 2^32 elements answer 0 and False",
        affects="torch 2.13; 2.14 too, later versions raise",
        upstream="pytorch#194082",
        guard=None,
        reason="no training step reduces so many elements at once: it would take 8 GB for one tensor of fp16",
        probe=None,
        size=2**32,
    ),
    Fault(
        name="layer-norm-frozen-input",
        wrong="the gradients of layer_norm's weight and bias are garbage where its input needs none",
        affects="torch up to 2.12",
        upstream="pytorch#183825, #183893",
        guard=None,
        reason="mended before torch 2.13, the oldest that is supported",
        probe="layer_norm gradients",
    ),
    Fault(
        name="conv-many-rows",
        wrong="the weight gradient of conv1d and conv2d over a batch of 65536 or more leaves samples out",
        affects="all torch versions",
        upstream="pytorch#96225, #193577",
        guard="aten::convolution_backward on MPS",
        reason="the batch is split",
        probe="convolution on 65536 rows",
        size=65536,
    ),
    Fault(
        name="fused-optimizer-scale",
        wrong="fused Adam, AdamW and SGD take no notice of the gradient scaler: neither of its scale nor of infinities",
        affects="torch up to 2.12",
        upstream="pytorch#186360",
        guard=None,
        reason="mended before torch 2.13, the oldest that is supported; for fp16 with an older torch adamw_torch takes "
        "its place",
        probe="fused optimizer with a scaler",
    ),
    Fault(
        name="checkpoint-rng",
        wrong="checkpointing recomputes a block with dropout with another mask: gradients belong to another forward",
        affects="torch up to 2.14: torch.utils.checkpoint asks torch.mps._initialized, which does not exist",
        upstream="pytorch#127676, #194478",
        guard="torch.mps:_initialized",
        reason="torch.mps gets what is asked for",
        probe="checkpointed dropout",
        inherent=True,
    ),
    Fault(
        name="compiled-sum-race",
        wrong="total.add_(x.sum()), compiled, lets every thread add to the total that it reads: a race",
        affects="torch 2.13, perhaps later",
        upstream="torch 2.13.0 torch/_inductor/codegen/mps.py",
        guard="torch._inductor.codegen.mps:MetalKernel.store",
        reason="one thread stores, when all have read",
        probe=None,
        inherent=True,
    ),
    Fault(
        name="cuda-autocast",
        wrong="autocast('cuda') does nothing on a Mac, and autocast('cuda', enabled=False) does not switch mps's off",
        affects="all torch versions",
        upstream="torch 2.13.0 torch/amp/autocast_mode.py",
        guard="torch.amp.autocast_mode:autocast.__init__",
        reason="the device type is changed to mps",
        probe="autocast('cuda')",
        inherent=True,
    ),
    Fault(
        name="attention-dropout",
        wrong="attention with dropout where no gradient is needed, as under reentrant checkpointing and in frozen "
        "layers, raises NotImplementedError; up to torch 2.12 the dropout is left out without a word",
        affects="all torch versions",
        upstream="pytorch#184126",
        guard="aten::_scaled_dot_product_attention_math_for_mps on MPS",
        reason="with dropout the products are taken that torch takes for gradients",
        probe="attention dropout",
        inherent=True,
    ),
    Fault(
        name="exponential-zero",
        wrong="exponential_ gives -0 once in 30 million numbers (here: the first of every call), and multinomial, "
        "which divides by them, draws a token of probability 0",
        affects="torch 2.13, and perhaps earlier",
        upstream="pytorch#192577, #192621",
        guard="aten::exponential_ on MPS",
        reason="the smallest normal number takes the place of zeros",
        probe="random numbers without zeros",
    ),
    Fault(
        name="embedding-large-table",
        wrong="embeddings and index_select find zeros in rows that lie beyond element 2^31 of their table",
        affects="torch up to 2.13",
        upstream="pytorch#188756",
        guard="aten::index_select on MPS",
        reason="each part of the table is looked up in by itself",
        probe="lookups beyond 2^31 elements",
        size=2**31,
    ),
    Fault(
        name="index-beyond-table",
        wrong="token ids beyond the vocabulary are looked up as zeros, and labels beyond the classes are ignored",
        affects="torch up to 2.13; 2.14 raises for ids at the next wait for the GPU, and names none of them",
        upstream="pytorch#123119, #144824, #154235",
        guard="aten::index_select on MPS",
        reason="IndexError for what came from the CPU, which names the id, the size and the cure; so do the losses",
        probe="ids beyond the vocabulary",
    ),
    Fault(
        name="cat-large-output",
        wrong="cat leaves its result unwritten beyond 2^31 elements, and writes to other tensors",
        affects="torch 2.13, perhaps 2.14",
        upstream="pytorch#189960, #189965",
        guard="aten::cat on MPS",
        reason="the parts are copied one by one",
        probe="concatenation beyond 2^31 elements",
        size=2**31,
    ),
    Fault(
        name="layer-norm-small-variance",
        wrong="layer_norm takes E[x^2] - E[x]^2 for the variance, and nothing below 1e-6: rows that vary little come "
        "out as if they varied more",
        affects="torch up to 2.13",
        upstream="pytorch#186367, #190491, #190492",
        guard=None,
        reason="a guard would double the kernels of every LayerNorm, and language models' rows vary by more than 1e-6",
        probe="layer_norm of rows that vary little",
    ),
    Fault(
        name="mask-index-race",
        wrong="indexing by a boolean mask raises AcceleratorError now and then (here: every twentieth time)",
        affects="torch 2.10 and later, on some machines",
        upstream="pytorch#178079",
        guard=None,
        reason="an error and no wrong number, of which nobody knows the cause",
        probe="indexing by masks",
    ),
    Fault(
        name="product-stride-zero",
        wrong="products of an operand that repeats a row, such as the gradient of y.sum(), compute every sixteenth "
        "row; the others are zero",
        affects="macOS 27 (beta); macOS 15 to 26.3 with torch up to 2.11",
        upstream="pytorch#180201, #180236",
        guard="aten::mm on MPS",
        reason="such operands are copied out; so are those of all other products and of linear layers",
        probe="gradient of a sum",
    ),
    Fault(
        name="unique-large-integers",
        wrong="unique(return_inverse=True) of int64 above 2^24 gives the inverse of other values",
        affects="all torch versions",
        upstream="pytorch#195595",
        guard="aten::_unique2 on MPS",
        reason="the inverse is looked up among the values",
        probe="unique of large integers",
    ),
    Fault(
        name="sort-many-columns",
        wrong="sort and argsort along another dimension than the last leave columns beyond 2^22 unsorted",
        affects="torch 2.12 to 2.13, perhaps later",
        upstream="pytorch#183885",
        guard="aten::sort.stable on MPS",
        reason="2^22 columns are sorted at a time",
        probe="sorting many columns",
        size=2**22,
    ),
    Fault(
        name="embedding-bag-edge",
        wrong="embedding_bag takes an index equal to the number of rows, and reads the memory behind the table",
        affects="all torch versions",
        upstream="pytorch#189971, #189973",
        guard="aten::_embedding_bag on MPS",
        reason="IndexError for indices that came from the CPU",
        probe="ids beyond the vocabulary",
    ),
    Fault(
        name="batch-norm-strided",
        wrong="batch_norm of five dimensions with the channels last ends the process (here: RuntimeError)",
        affects="torch 2.13, perhaps 2.14",
        upstream="pytorch#190645",
        guard="aten::native_batch_norm on MPS",
        reason="the input is made contiguous",
        probe="batch_norm of video",
    ),
    Fault(
        name="index-write-beyond",
        wrong="index_copy_ and index_fill_ write to where an index beyond the tensor points, be it another tensor",
        affects="all torch versions",
        upstream="pytorch#189968, #189969",
        guard="aten::index_copy_ on MPS",
        reason="IndexError for indices that came from the CPU; so does index_fill_",
        probe="writes beyond a tensor",
    ),
    Fault(
        name="gapped-copy",
        wrong="copy_ from mps into a view of the CPU with the same gaps (every second element, a part of each row) "
        "copies the memory in between",
        affects="torch 2.13, perhaps 2.14",
        upstream="pytorch#189961",
        guard="torch:Tensor.copy_",
        reason="the source is made contiguous",
        probe="copy into a view",
    ),
)

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _LIST}
"""Every fault by its name."""

_ACTIVE: list[dict[str, int]] = []
"""What is switched on, outermost first: names, each with its size."""


def active() -> tuple[str, ...]:
    """The names of the faults that are switched on."""
    return tuple(sorted({name for level in _ACTIVE for name in level}))


@contextmanager
def inject(*names: str, sizes: Mapping[str, int] | None = None) -> Iterator[None]:
    """Switches faults on, for the whole process, until the block is left.

    Args:
        names: of faults; those that are on already stay on.
        sizes: other sizes than a fault's own from which it shows, for faults that need more memory than there is.

    Raises:
        InvalidSwitch: a fault has no such name.
        SimulatorUnavailable: there is no simulated device.
    """
    switch_on(names, sizes)
    level = _ACTIVE[-1]
    try:
        yield
    finally:
        _ACTIVE[:] = [other for other in _ACTIVE if other is not level]
        _tell_device()


def switch_on(names: tuple[str, ...], sizes: Mapping[str, int] | None = None) -> None:
    """Switches faults on for the rest of the process; arguments and errors as for `inject`."""
    check([*names, *(sizes or {})])
    given = sizes or {}
    _ACTIVE.append({name: given.get(name, FAULTS[name].size) for name in names})
    try:
        _tell_device()
    except SimulatorUnavailable:
        _ACTIVE.pop()
        raise


def from_environment() -> tuple[str, ...]:
    """The names in ``PATCHER_SIMULATE_FAULTS``, separated by commas. Raises InvalidSwitch for one that is unknown."""
    text = environment.value_of(VARIABLE) or ""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    check(names)
    return names


def check(names: list[str] | tuple[str, ...]) -> None:
    """Raises InvalidSwitch, with the list of all faults, if one of the names is none."""
    unknown = [name for name in names if name not in FAULTS]
    if unknown:
        raise InvalidSwitch(
            compose(
                "the simulated Mac has no such fault",
                expected=", ".join(FAULTS),
                found=", ".join(unknown),
                left="nothing was switched on",
                run=f"{VARIABLE}={next(iter(FAULTS))}, or inject({next(iter(FAULTS))!r})",
            )
        )


def _tell_device() -> None:
    device = running()
    if device is None:
        raise SimulatorUnavailable(
            compose("faults are those of the simulated Mac, and there is none", run="patcher.simulator.start()")
        )
    merged = {name: size for level in _ACTIVE for name, size in level.items()}
    device.set_faults(active(), {name: size for name, size in merged.items() if not FAULTS[name].inherent})
