"""Tiles of a head's logits in scratch memory of a fixed size, whatever the vocabulary, and the rows that count.

`Tiles` walks over blocks of rows and, for each, over pieces of the vocabulary. All tiles of a walk live in the same
memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from patcher.errors import IndexBeyondTable, compose
from patcher.ops.logit_tiles import Head, spans

SCRATCH = 32 << 20
"""Bytes that a block of rows, its gradient and a tile take at most, beside what is given and what is returned."""

ROWS = 1024
"""Most rows of a block."""

COLUMNS = 16384
"""Most columns of a tile: a product over them stays below the 32767 terms from which on Metal's is wrong."""

WHOLE = 64
"""Columns of a tile are a multiple of this, or all there are."""


def counted_rows(labels: Tensor, vocabulary: int, ignore_index: int, on_host: Tensor | None = None) -> Tensor | None:
    """Positions of the rows whose label is not ``ignore_index``, in order, int64; None where all count.

    How many they are has to be known where their kernels are launched: without ``on_host`` it waits for the device
    once.

    Args:
        labels: ``[N]``, integers.
        vocabulary: what labels must be below.
        ignore_index: the label of rows that do not count.
        on_host: the same labels on the CPU, where they are known.

    Raises:
        IndexBeyondTable: a label is neither ``ignore_index`` nor in ``[0, vocabulary)``.
    """
    known = labels if on_host is None else on_host
    counts = known != ignore_index
    wrong = counts & ((known < 0) | (known >= vocabulary))
    kept, bad = torch.stack((counts.sum(), wrong.sum())).tolist()
    if bad:
        raise IndexBeyondTable(
            compose(
                "a label is not in the vocabulary",
                expected=f"{ignore_index}, or 0 to {vocabulary - 1}",
                found=f"{int(known[wrong][0])}, and {bad - 1} more such labels",
                left="no loss was computed",
                run="take the model's own tokenizer; for new tokens model.resize_token_embeddings(len(tokenizer))",
            )
        )
    if kept == len(labels):
        return None
    return positions(counts if on_host is None else labels != ignore_index, kept)


def positions(mask: Tensor, count: int) -> Tensor:
    """Where ``mask`` ``[N]`` is True, as ``mask.nonzero()`` gives it, without its wait: ``count`` is known."""
    place = torch.where(mask, mask.cumsum(0) - 1, count)
    found = torch.zeros(count + 1, dtype=torch.int64, device=mask.device)
    return found.scatter_(0, place, torch.arange(len(mask), device=mask.device))[:count]


class Tiles:
    """Blocks of rows and tiles of their logits.

    Args:
        head: what is computed; its hidden states are ``[N, H]``.
        labels: ``[n]`` int64 in ``[0, V)``, of the rows that count.
        index: ``[n]``, which rows of the hidden states these are; None for all.
        second: whether another tile is needed beside each.

    Attributes:
        height: rows of a block.
        width: columns of a tile; the last one may have fewer.
    """

    def __init__(self, head: Head, labels: Tensor, index: Tensor | None, *, second: bool = False) -> None:
        self.head, self.labels, self.index = head, labels, index
        self.height, self.width = _shape(head, len(labels), index is not None, second)
        self._memory = torch.empty(self.height * self.width + 1, dtype=head.compute_dtype, device=labels.device)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """``(first, last)`` of each block of rows."""
        return spans(len(self.labels), self.height)

    def pieces(self) -> Iterator[tuple[int, int, int]]:
        """``(number, start, end)`` of each piece of the vocabulary."""
        for number, (start, end) in enumerate(spans(len(self.head.weight), self.width)):
            yield number, start, end

    def rows(self, first: int, last: int) -> Tensor:
        """Hidden states of a block in the compute dtype, ``[n, H]``."""
        hidden = self.head.hidden
        block = hidden[first:last] if self.index is None else hidden.index_select(0, self.index[first:last])
        return block.to(self.head.compute_dtype)

    def product(self, rows: Tensor, weight: Tensor) -> Tensor:
        """The products of a block with a piece of the weight, in the compute dtype and in the memory of the one before.

        As `patcher.ops.softmax_tile` takes it.
        """
        y = self._memory[: len(rows) * len(weight)].view(len(rows), len(weight))
        return torch.mm(rows, weight.t(), out=y)

    def bias(self, start: int, end: int) -> Tensor | None:
        """That of a piece of the vocabulary."""
        return None if self.head.bias is None else self.head.bias[start:end]

    def places(self, first: int, last: int) -> Tensor:
        """Where a block's labels are in the tile of each piece of the vocabulary, ``[pieces, n]``.

        As `patcher.ops.softmax_tile` takes it.
        """
        labels, count, rows = self.labels[first:last], -(-len(self.head.weight) // self.width), last - first
        number = labels // self.width
        pieces = torch.arange(count, device=labels.device)[:, None]
        width = torch.where(pieces == count - 1, len(self.head.weight) - (count - 1) * self.width, self.width)
        place = torch.arange(rows, device=labels.device) * width + labels - number * self.width
        return torch.where(number == pieces, place, rows * width)

    def label_logits(self, rows: Tensor, of_labels: Tensor, first: int, last: int) -> tuple[Tensor, Tensor | float]:
        """``z`` of each row's label and its slope, ``[n]``, from products in fp32.

        Args:
            rows: of the block.
            of_labels: the labels' rows of the weight, ``[n, H]``.
            first: of the block.
            last: of the block.
        """
        y = torch.empty(len(rows), dtype=torch.float32, device=rows.device)
        for part, product in self._copies(of_labels):
            torch.sum(product.mul_(rows[part]), 1, out=y[part])
        if self.head.bias is not None:
            y += self.head.bias.index_select(0, self.labels[first:last])
        return self.head.transform.with_slope(y)

    def add_labels_(self, gradient: Tensor, of_labels: Tensor, factor: Tensor) -> None:
        """Adds ``factor`` ``[n]`` times the labels' rows of the weight to a block's fp32 gradient."""
        for part, product in self._copies(of_labels):
            gradient[part] += product.mul_(factor[part, None])

    def _copies(self, of_labels: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Rows in fp32, as many at a time as a tile takes that is made fp32."""
        features = of_labels.size(1)
        room = max(1, self.height * self.width // features)
        for start, end in spans(len(of_labels), room):
            yield slice(start, end), of_labels[start:end].to(torch.float32, copy=True)


def add_product_(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``total += a @ b`` in place for a fp32 ``total``; a product of 16 bits is rounded once before it is added.

    ``out=`` keeps autocast from choosing another dtype.
    """
    if a.dtype == total.dtype:
        return total.addmm_(a, b)
    return total.add_(torch.mm(a, b, out=torch.empty(total.shape, dtype=a.dtype, device=a.device)))


def _shape(head: Head, count: int, gathered: bool, second: bool) -> tuple[int, int]:
    """Rows of a block and columns of a tile, so that everything stays within `SCRATCH`.

    For each row there are its gradient in fp32, the product that is added to it, its label's weight, and itself where
    it is gathered or cast; for each element of a tile it in fp32, once or twice, in the compute dtype and its slope. It
    depends on nothing else, so that a row has the same loss with a gradient and without.
    """
    features, vocabulary, size = head.hidden.size(1), len(head.weight), head.compute_dtype.itemsize
    copied = gathered or head.hidden.dtype != head.compute_dtype
    row = features * (4 + 2 * size + size * copied)
    height = max(1, min(count, ROWS, SCRATCH // 2 // row))
    column = features * size * (head.weight.dtype != head.compute_dtype)
    element = 4 + 4 * second + (size if size < 4 else 0) + (0 if head.transform.softcap is None else 4)
    most = min(COLUMNS, max(WHOLE, (SCRATCH - height * row) // (height * element + column) // WHOLE * WHOLE))
    pieces = -(-vocabulary // most)
    return height, min(vocabulary, -(-vocabulary // (pieces * WHOLE)) * WHOLE)
