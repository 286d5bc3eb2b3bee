"""Probes of what PyTorch's mps backend has got wrong where it draws, looks up, sorts and normalizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from patcher.verify.check import MPS, Check, Failed, Situation, Skipped
from patcher.verify.compare import assert_close, distance, tolerance

BEYOND = 2**31
"""Kernels that count elements in 32 bits go wrong beyond this many."""


def attention_dropout(here: Situation) -> str:
    """Attention with dropout where no gradient is needed leaves out what it is to leave out (pytorch#184126)."""
    zeros, ones = torch.zeros(1, 4, 64, 32, device="mps"), torch.ones(1, 4, 64, 32, device="mps")
    torch.manual_seed(0)
    with torch.no_grad():
        kept = functional.scaled_dot_product_attention(zeros, zeros, ones, dropout_p=0.5)[..., 0].cpu() * 32
    if not torch.equal(kept, kept.round()) or bool((kept == 32).all()):
        raise Failed("sums of 64 equal weights, each kept or not, are no multiples of one of them")
    return f"of 64 keys {kept.min():.0f} to {kept.max():.0f} kept"


def random_zeros(here: Situation) -> str:
    """``exponential_``, by which ``multinomial`` divides, is never 0 (pytorch#192577)."""
    numbers = torch.empty(2**24, device="mps")
    for _ in range(4):
        zeros = int((numbers.exponential_() == 0).sum())
        if zeros:
            raise Failed(f"{zeros} of {numbers.numel()} numbers are 0: multinomial draws tokens of probability 0")
    return f"none in {4 * numbers.numel()} numbers"


def ids_beyond(here: Situation) -> str:
    """A token id beyond the vocabulary is an error (pytorch#154235, #189971)."""
    table, offsets = torch.ones(4, 2, device="mps"), torch.tensor([0], device="mps")
    look_ups: dict[str, Callable[[Tensor], Tensor]] = {
        "embedding": lambda ids: functional.embedding(ids, table),
        "embedding_bag": lambda ids: functional.embedding_bag(ids, table, offsets),
    }
    for name, look_up in look_ups.items():
        if not _raises(lambda look_up=look_up: look_up(torch.tensor([1, 4]).to("mps"))):  # type: ignore[misc]
            raise Failed(f"{name} finds something for id 4 in a table of 4 rows")
    return "an error in embedding and embedding_bag"


def writes_beyond(here: Situation) -> str:
    """``index_copy_`` writes nothing outside its tensor (pytorch#189968)."""
    memory = torch.zeros(64, device="mps")
    raised = _raises(lambda: memory[:32].index_copy_(0, torch.tensor([40]).to("mps"), torch.ones(1, device="mps")))
    if not raised or memory[40].item() != 0:
        raise Failed("index 40 of a part of 32 elements is written to, behind that part")
    return "an error"


def copied_view(here: Situation) -> str:
    """``copy_`` into a view of the CPU with gaps, from one of mps with the same gaps (pytorch#189961)."""
    memory, source = torch.zeros(20), torch.arange(20.0, device="mps")
    memory[::2].copy_(source[::2])
    expected = torch.arange(20.0) * torch.tensor([1.0, 0.0]).repeat(10)
    if not torch.equal(memory, expected):
        raise Failed(f"{int((memory != expected).sum())} of 20 elements are others, in the view or between them")
    return "every second element"


def _raises(call: Callable[[], Tensor]) -> bool:
    """Whether the call, or the GPU when it comes to it, says that an index is wrong."""
    try:
        call()
        torch.mps.synchronize()
    except (IndexError, torch.AcceleratorError, RuntimeError):
        return True
    return False


def small_variance(here: Situation) -> str:
    """layer_norm of rows that vary by less than a thousandth, or by little around a large mean (pytorch#190491).

    A mean of 100 is rounded by 4e-6, which is 4e-4 of what the rows vary by.
    """
    told, spread = "", torch.tensor([-1.0, -1.0, 1.0, 1.0])
    for mean, by in ((0.0, 9e-4), (100.0, 0.01)):
        row = (mean + by * spread).float()
        exact = functional.layer_norm(row.double(), (4,), eps=1e-12)
        found = functional.layer_norm(row.to("mps"), (4,), eps=1e-12).cpu()
        told = distance([assert_close(f"{mean} +- {by}", found, exact, 1e-3)], 1e-3)
    return told


def masks(here: Situation) -> str:
    """Indexing by a boolean mask gives what the mask has, every time (pytorch#178079, #181867)."""
    x = torch.arange(2**19, device="mps")
    mask = torch.rand(2**19, generator=torch.Generator().manual_seed(0)).lt(0.5).to("mps")
    expected = int(mask.sum())
    for turn in range(100):
        if x[mask].numel() != expected:
            raise Failed(f"the mask number {turn + 1} of 100 gives another number of elements")
    return "100 times"


def gradient_of_sum(here: Situation) -> str:
    """The gradient of ``y.sum()``, which repeats one number, through a linear layer (pytorch#180201)."""

    def run(device: str, dtype: torch.dtype) -> list[Tensor]:
        x, weight = (
            torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device, dtype).requires_grad_()
            for shape in ((2, 64, 16), (8, 16))
        )
        return list(torch.autograd.grad(functional.linear(x, weight).sum(), (x, weight)))

    allowed = tolerance(torch.float32, length=128)
    pairs = zip(("dx", "dW"), run("mps", torch.float32), run("cpu", torch.float64), strict=True)
    return distance([assert_close(name, found.cpu(), exact, allowed) for name, found, exact in pairs], allowed)


def large_integers(here: Situation) -> str:
    """The inverse of ``unique`` belongs to its values, above 2^24 as well (pytorch#195595)."""
    numbers = torch.arange(2**24, 2**24 + 4096).flip(0)
    unique: Any = torch.unique
    values, inverse = unique(numbers.to("mps"), return_inverse=True)
    wrong = int((values.cpu()[inverse.cpu()] != numbers).sum())
    if wrong:
        raise Failed(f"the inverse of {wrong} of {numbers.numel()} numbers above 2^24 belongs to another number")
    return f"{numbers.numel()} numbers above 2^24"


def many_columns(here: Situation) -> str:
    """Sorting 3 rows by columns, of which there are more than 2^22 (pytorch#183885)."""
    x = torch.rand(3, 2**22 + 64, generator=torch.Generator().manual_seed(0)).to("mps")
    ordered = torch.gather(x, 0, x.argsort(0))
    wrong = int((ordered[1:] < ordered[:-1]).any(0).sum())
    if wrong:
        raise Failed(f"{wrong} of {x.size(1)} columns are not sorted")
    return f"{x.size(1)} columns"


def video_norm(here: Situation) -> str:
    """Batch normalization of five dimensions with the channels last; ended the process (pytorch#190645)."""
    x = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    exact = functional.batch_norm(x.permute(0, 4, 1, 2, 3).double(), None, None, training=True)
    found = functional.batch_norm(x.to("mps").permute(0, 4, 1, 2, 3), None, None, training=True).cpu()
    allowed = tolerance(torch.float32, length=120)
    return distance([assert_close("output", found, exact, allowed)], allowed)


def large_table(here: Situation) -> str:
    """Rows of an embedding that lie beyond element 2^31 of its table (pytorch#188756)."""
    rows, columns = _beyond(here, torch.bfloat16)
    table = torch.empty(rows, columns, dtype=torch.bfloat16, device="mps")
    ids = torch.tensor([0, rows - 2, rows - 1])
    for number, row in enumerate(ids.tolist(), 1):
        table[row] = number
    exact = torch.arange(1.0, 4.0)[:, None].expand(3, columns)
    look_ups: dict[str, Callable[[Tensor], Tensor]] = {
        "embedding": lambda ids: functional.embedding(ids, table),
        "index_select": lambda ids: table.index_select(0, ids),
    }
    for name, look_up in look_ups.items():
        wrong = int((look_up(ids.to("mps")).cpu() != exact).any(1).sum())
        if wrong:
            raise Failed(f"{name} finds other numbers in {wrong} of 3 rows of a table of {table.numel()} elements")
    return f"rows of a table of {table.numel()} elements"


def large_concatenation(here: Situation) -> str:
    """``cat`` to more than 2^31 elements, where no dimension has as many (pytorch#189960).

    The parts repeat a row, so that the result alone takes memory.
    """
    rows, columns = _beyond(here, torch.int8)
    row = torch.arange(columns).remainder(100).to("mps", torch.int8).expand(rows, columns)
    joined = torch.cat(row.chunk(2, 1), 1)
    for place in (0, rows - 2, rows - 1):
        wrong = int((joined[place] != row[0]).sum())
        if wrong:
            raise Failed(f"{wrong} of {columns} elements of row {place} of {rows} are others")
    return f"{joined.numel()} elements"


def _beyond(here: Situation, dtype: torch.dtype) -> tuple[int, int]:
    """Rows and columns of a matrix whose last row lies beyond `BEYOND`; skipped if it takes over half of the memory."""
    columns = 2 ** (BEYOND.bit_length() // 2)
    rows = BEYOND // columns + 1
    size, memory = rows * columns * dtype.itemsize, here.machine.memory_bytes
    if size > memory // 2:
        raise Skipped(f"takes {size / 2**30:.1f} GiB, more than half of this machine's {memory / 2**30:.0f} GiB")
    return rows, columns


_check = partial(Check, "known hazards", needs=(MPS,))
_PATCH = "call patch_for_mac() first"

CHECKS = (
    _check("attention dropout", attention_dropout, f"{_PATCH}, or load models with attn_implementation='eager'"),
    _check("random numbers without zeros", random_zeros, f"{_PATCH}, or update torch to 2.14"),
    _check("ids beyond the vocabulary", ids_beyond, f"{_PATCH}; it looks at ids that come from the CPU"),
    _check("writes beyond a tensor", writes_beyond, f"{_PATCH}; it looks at indices that come from the CPU"),
    _check("copy into a view", copied_view, f"{_PATCH}, or copy from .contiguous()"),
    _check("layer_norm of rows that vary little", small_variance, "update torch to 2.14"),
    _check("indexing by masks", masks, "use torch.where, or run again: another attempt may succeed"),
    _check("gradient of a sum", gradient_of_sum, _PATCH),
    _check("unique of large integers", large_integers, f"{_PATCH}, or call unique on the CPU"),
    _check("sorting many columns", many_columns, f"{_PATCH}, or sort along the last dimension", full=True),
    _check("batch_norm of video", video_norm, f"{_PATCH}, or make the input contiguous", full=True),
    _check("lookups beyond 2^31 elements", large_table, f"{_PATCH}, or update torch to 2.14", full=True),
    _check("concatenation beyond 2^31 elements", large_concatenation, f"{_PATCH}, or copy into a result", full=True),
)
