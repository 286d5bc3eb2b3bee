"""Cross entropy of a language-model head against one label per row, without the ``[N, V]`` logits.

For a row with label ``c``, over the vocabulary ``j``, with ``z = transform(hidden @ weight.T + bias)`` (see
`patcher.ops.logit_tiles.LogitTransform`)::

    log_z = log sum_j exp(z_j)             nll  = log_z - z_c         eps: label smoothing, k: z-loss
    loss  = (1 - eps) nll + eps (log_z - mean_j z_j) + k log_z^2

    d loss / d z_j = p_j (1 + 2 k log_z) - (1 - eps) [j = c] - eps / V          p_j = exp(z_j - log_z)

Rows whose label is ``ignore_index`` have loss 0 and no gradient, and nothing is computed for them.

Where the head is frozen, the gradient of a hidden state is a sum over the vocabulary that is weighted by the softmax,
as attention's output is, so that one walk over the vocabulary gives loss and gradient (Milakov and Gimelshein, "Online
normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022): two products, as many as a linear layer
has. The backward multiplies by the gradient of the loss. With a head that is trained, and with label smoothing, the
backward computes each tile of logits a second time, as ``log_z`` must be known.

The label's own logit stays out of the walk: it is a product in fp32, its loss is
``softplus(log sum_{j != c} exp(z_j) - z_c)`` and its gradient ``expm1(-nll)``, exact where the label is almost certain.
Products are in the compute dtype, everything else is in fp32, also the sums of gradients over tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from patcher.ops.bounded_tiles import Tiles, add_product_, counted_rows
from patcher.ops.logit_tiles import Gradients, Head, LogitTransform
from patcher.ops.row_chunks import row_chunks

LOWEST = torch.finfo(torch.float32).min / 2
"""A maximum over nothing; finite, so that the difference of two is no NaN."""


@dataclass(frozen=True)
class Terms:
    """What is added to the loss: label smoothing in ``[0, 1]``, and the factor of ``log_z ** 2``."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0


class Rows(NamedTuple):
    """Per row that counts, fp32: ``losses``, ``nll`` and ``log_z`` ``[n]``, and ``gradient`` ``[n, H]``, if wanted."""

    losses: Tensor
    nll: Tensor
    log_z: Tensor
    gradient: Tensor | None


class _Rivals:
    """Of a block's rows: maximum, sum of exponentials and gradient over all tokens but the label, tile by tile."""

    def __init__(self, labels: Tensor, gradient: Tensor | None) -> None:
        self.maximum = torch.full(labels.shape, LOWEST, dtype=torch.float32, device=labels.device)
        self.sum = torch.zeros_like(self.maximum)
        self.gradient = gradient

    def fold(self, tiles: Tiles, z: Tensor, slope: Tensor | float, weight: Tensor) -> None:
        """Takes in a tile, in which the labels are -inf. ``z`` is overwritten; ``weight`` is the tile's columns."""
        maximum = torch.maximum(self.maximum, z.amax(1))
        rescale = torch.exp(self.maximum - maximum)
        self.maximum = maximum
        exp = z.sub_(maximum[:, None]).exp_()
        self.sum = self.sum.mul_(rescale).add_(exp.sum(1))
        if self.gradient is not None:
            if isinstance(slope, Tensor):
                exp.mul_(slope)
            add_product_(self.gradient.mul_(rescale[:, None]), tiles.narrowed(exp), weight)


@torch.no_grad()
def cross_entropy_rows(
    head: Head,
    labels: Tensor,
    index: Tensor | None = None,
    terms: Terms = Terms(),
    gradient: torch.dtype | None = None,
    factor: Tensor | None = None,
) -> Rows:
    """The quantities of the module's docstring, for the rows that count.

    Args:
        head: hidden states ``[N, H]``, weight ``[V, H]`` and what happens to the logits.
        labels: ``[n]`` int64 in ``[0, V)``.
        index: ``[n]``, which rows of the hidden states they belong to; None for all.
        terms: what is added to the loss. With label smoothing there is no gradient of this walk.
        gradient: the dtype in which the gradient of the rows' own losses is wanted; None for none.
        factor: ``[n]`` or ``[]`` fp32, what the gradient is multiplied by before it is rounded.
    """
    if gradient is not None and terms.label_smoothing:
        raise ValueError("the gradient of a smoothed loss takes linear_cross_entropy_backward")
    tiles = Tiles(head, labels, index)
    count, device = len(labels), labels.device
    losses, nll, log_z = (torch.empty(count, dtype=torch.float32, device=device) for _ in range(3))
    whole = None if gradient is None else torch.empty(count, head.hidden.size(1), dtype=gradient, device=device)
    factor = None if factor is None else factor.expand(count)
    for first, last in tiles.blocks():
        part = slice(first, last)
        total = None if whole is None else _fp32_zeros(whole[part])
        block = _block(tiles, first, last, terms, total, None if factor is None else factor[part])
        for result, value in zip((losses, nll, log_z), block, strict=True):
            result[part] = value
        if whole is not None and total is not None and total.dtype != whole.dtype:
            whole[part] = total
    return Rows(losses, nll, log_z, whole)


def _fp32_zeros(block: Tensor) -> Tensor:
    """Zeros to sum up in: the block itself where it is fp32."""
    return block.zero_() if block.dtype == torch.float32 else torch.zeros_like(block, dtype=torch.float32)


def _block(
    tiles: Tiles, first: int, last: int, terms: Terms, gradient: Tensor | None, factor: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, nll and ``log_z`` of a block of rows; ``gradient``, zeros in fp32, becomes theirs times ``factor``."""
    head, labels = tiles.head, tiles.labels[first:last]
    rows = tiles.rows(first, last)
    of_labels = head.weight.index_select(0, labels).to(head.compute_dtype)
    z_label, slope_label = tiles.label_logits(rows, of_labels, first, last)
    rivals, places = _Rivals(labels, gradient), tiles.at_labels(first, last)
    total = torch.zeros_like(z_label)
    slope: Tensor | float = 1.0
    for number, start, end in tiles.pieces():
        weight = head.columns(start, end)
        z, slope = tiles.logits(rows, weight, start, end)
        if terms.label_smoothing:
            total += z.sum(1)
        tiles.fill_(places[number], -torch.inf)
        rivals.fold(tiles, z, slope, weight)
    log_rivals = rivals.sum.log().add_(rivals.maximum)
    nll, log_z = softplus(log_rivals - z_label), torch.logaddexp(log_rivals, z_label)
    if gradient is not None:
        of_label = _at_label(nll, log_z, len(head.weight), terms) * slope_label
        of_rivals = torch.exp(rivals.maximum - log_z).mul_(_at_tokens(log_z, terms))
        if not isinstance(slope, Tensor):
            of_rivals.mul_(slope)
        if factor is not None:
            of_label, of_rivals = of_label * factor, of_rivals.mul_(factor)
        tiles.add_labels_(gradient.mul_(of_rivals[:, None]), of_labels, of_label)
    return _losses(nll, log_z, total / len(head.weight), terms), nll, log_z


def _losses(nll: Tensor, log_z: Tensor, mean: Tensor, terms: Terms) -> Tensor:
    losses = nll
    if terms.label_smoothing:
        losses = nll.lerp(log_z - mean, terms.label_smoothing)
    return losses if not terms.z_loss else losses.addcmul(log_z, log_z, value=terms.z_loss)


def _at_tokens(log_z: Tensor, terms: Terms) -> Tensor | float:
    """What a token's probability is multiplied by in its gradient."""
    return 1.0 if not terms.z_loss else 1 + 2 * terms.z_loss * log_z


def _at_label(nll: Tensor, log_z: Tensor, vocabulary: int, terms: Terms) -> Tensor:
    """The gradient of the label's ``z``."""
    value = torch.expm1(-nll).add_(terms.label_smoothing * (1 - 1 / vocabulary))
    return value if not terms.z_loss else value.addcmul_(log_z, torch.exp(-nll), value=2 * terms.z_loss)


@torch.no_grad()
def cross_entropy_rows_backward(
    grad_losses: Tensor,
    head: Head,
    labels: Tensor,
    index: Tensor | None,
    rows: Rows,
    terms: Terms,
    output_mask: tuple[bool, bool, bool],
) -> Gradients:
    """The gradients of hidden states, weight and bias; every tile of logits is computed again.

    The sums of the weight's gradient over blocks of rows are in fp32 and take the memory of one tile's columns; those
    of the hidden states take ``[n, H]`` in fp32.

    Args:
        grad_losses: ``[n]`` fp32.
        head: as in the forward.
        labels: as in the forward.
        index: as in the forward.
        rows: of the forward.
        terms: as in the forward.
        output_mask: which of the three are wanted.

    Returns:
        Each in its tensor's dtype, None where not wanted. The hidden states' has their shape, also where rows were left
        out.
    """
    tiles = Tiles(head, labels, index)
    largest = grad_losses.abs().amax().clamp_min_(torch.finfo(torch.float32).tiny) if len(labels) else grad_losses.sum()
    gradients = _Gradients(tiles, grad_losses / largest, output_mask)
    at_label = _at_label(rows.nll, rows.log_z, len(head.weight), terms)
    at_tokens = _at_tokens(rows.log_z, terms)
    places = [tiles.at_labels(first, last) for first, last in tiles.blocks()]
    for number, start, end in tiles.pieces():
        weight = head.columns(start, end)
        for block, (first, last) in enumerate(tiles.blocks()):
            part = slice(first, last)
            z, slope = tiles.logits(tiles.rows(first, last), weight, start, end)
            grad_z = z.sub_(rows.log_z[part, None]).exp_()
            if isinstance(at_tokens, Tensor):
                grad_z.mul_(at_tokens[part, None])
            if terms.label_smoothing:
                grad_z.sub_(terms.label_smoothing / len(head.weight))
            tiles.put_(places[block][number], at_label[part])
            if isinstance(slope, Tensor) or slope != 1:
                grad_z.mul_(slope)
            gradients.add(grad_z, weight, part)
        gradients.finish(slice(start, end), largest)
    return gradients.hidden(largest), gradients.weight, gradients.bias


class _Gradients:
    """Sums of gradients over tiles.

    A tile holds the gradients of rows' own losses, so that none is lost in fp16: the rows' factors, at most 1, are in
    the hidden states that the weight's gradient is a product with.
    """

    def __init__(self, tiles: Tiles, factor: Tensor, output_mask: tuple[bool, bool, bool]) -> None:
        head, (of_hidden, of_weight, of_bias) = tiles.head, output_mask
        self._tiles, self._factor = tiles, factor
        features, device = head.hidden.size(1), factor.device
        self._hidden = torch.zeros(len(factor), features, device=device) if of_hidden else None
        self._scaled = self._scaled_rows() if of_weight else None
        self._columns = torch.zeros(tiles.width, features, device=device) if of_weight else None
        self._biases = torch.zeros(tiles.width, device=device) if of_bias else None
        self.weight = torch.empty_like(head.weight) if of_weight else None
        self.bias = torch.empty_like(head.bias) if of_bias and head.bias is not None else None

    def _scaled_rows(self) -> Tensor:
        head, factor = self._tiles.head, self._factor
        scaled = torch.empty(len(factor), head.hidden.size(1), dtype=head.compute_dtype, device=factor.device)
        for first, last in self._tiles.blocks():
            scaled[first:last] = self._tiles.rows(first, last) * factor[first:last, None]
        return scaled

    def add(self, tile: Tensor, weight: Tensor, part: slice) -> None:
        """Takes in a tile of gradients of ``y``, which is overwritten."""
        narrowed = self._tiles.narrowed(tile)
        if self._hidden is not None:
            add_product_(self._hidden[part], narrowed, weight)
        if self._columns is not None and self._scaled is not None:
            add_product_(self._columns[: len(weight)], narrowed.t(), self._scaled[part])
        if self._biases is not None:
            self._biases[: len(weight)] += tile.mul_(self._factor[part, None]).sum(0)

    def finish(self, piece: slice, scale: Tensor) -> None:
        """Rounds what belongs to a piece of the vocabulary, of which all rows are in, and begins the next one."""
        for total, result in ((self._columns, self.weight), (self._biases, self.bias)):
            if total is not None and result is not None:
                result[piece] = total[: len(result[piece])] * scale
                total.zero_()

    def hidden(self, scale: Tensor) -> Tensor | None:
        """``[N, H]``: rows that do not count have zeros."""
        if self._hidden is None:
            return None
        return spread(self._hidden, self._factor * scale, self._tiles.index, self._tiles.head.hidden)


def spread(rows: Tensor, factor: Tensor, index: Tensor | None, like: Tensor) -> Tensor:
    """``factor`` ``[n]`` times ``rows`` ``[n, H]``, at the places ``index`` of zeros of ``like``'s shape and dtype."""
    result = torch.empty_like(rows, dtype=like.dtype)
    for part in row_chunks(*rows.shape):
        result[part] = rows[part] * factor[part, None]
    if index is None:
        return result
    return torch.zeros_like(like, memory_format=torch.contiguous_format).index_copy_(0, index, result)


class _Losses(torch.autograd.Function):
    """Losses of all rows; their gradient is kept where the head is frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        transform: LogitTransform,
        terms: Terms,
        ignore_index: int,
        wanted: tuple[bool, bool, bool],
    ) -> Tensor:
        device = hidden.device.type
        narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        head = Head(hidden, weight, bias, transform, narrow)
        index = counted_rows(labels, len(weight), ignore_index)
        kept = labels if index is None else labels.index_select(0, index)
        at_once = wanted == (True, False, False) and not terms.label_smoothing
        wide = torch.float32 if hidden.dtype == torch.float16 else hidden.dtype
        rows = cross_entropy_rows(head, kept, index, terms, wide if at_once else None)
        ctx.head, ctx.terms, ctx.wanted, ctx.at_once = (transform, narrow), terms, wanted, at_once
        ctx.save_for_backward(hidden, None if at_once else weight, bias, kept, index, *rows)
        if index is None:
            return rows.losses
        return torch.zeros(len(labels), dtype=torch.float32, device=labels.device).index_copy_(0, index, rows.losses)

    @staticmethod
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels, index, *rest = ctx.saved_tensors
        rows, grad_losses = Rows(*rest), grad_losses if index is None else grad_losses.index_select(0, index)
        if ctx.at_once and rows.gradient is not None:
            return spread(rows.gradient, grad_losses, index, hidden), *(None,) * 7
        head = Head(hidden, weight, bias, *ctx.head)
        return *cross_entropy_rows_backward(grad_losses, head, labels, index, rows, ctx.terms, ctx.wanted), *(None,) * 5


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    *,
    ignore_index: int = -100,
    scale: float = 1.0,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    row_weight: Tensor | None = None,
    n_items: Tensor | float | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """``cross_entropy(transform(linear(hidden, weight, bias)), labels)``, differentiable, without the logits.

    Args:
        hidden: ``[..., H]``; under autocast its dtype decides, as for a linear layer.
        weight: ``[V, H]``.
        labels: ``[...]`` integers, not shifted here.
        bias: ``[V]``.
        ignore_index: the label of rows that do not count.
        scale: factor of the logits.
        softcap: ``softcap * tanh(logits / softcap)``, after the scale; None for none.
        label_smoothing: in ``[0, 1]``.
        z_loss: factor of ``log_z ** 2``.
        row_weight: ``[...]``, what each row's loss is multiplied by; "mean" divides by the sum of those that count.
        n_items: what the sum is divided by instead of the number of rows that count.
        reduction: "none" gives ``[...]`` in fp32; ``n_items`` is not taken then.

    Returns:
        fp32; "mean" of no rows is NaN, as torch's.

    Raises:
        IndexError: a label is neither ``ignore_index`` nor a token.
    """
    flat = labels.reshape(-1).to(hidden.device, torch.int64)
    enabled = torch.is_grad_enabled()
    wanted = tuple(enabled and t is not None and t.requires_grad for t in (hidden, weight, bias))
    terms, transform = Terms(label_smoothing, z_loss), LogitTransform(scale, softcap)
    rows = hidden.reshape(-1, hidden.size(-1))
    arguments = (rows, weight, bias, flat, transform, terms, ignore_index, wanted)
    losses: Tensor = _Losses.apply(*arguments)  # type: ignore[no-untyped-call]
    counts = (flat != ignore_index).to(torch.float32)
    if row_weight is not None:
        counts = counts * row_weight.reshape(-1)
        losses = losses * row_weight.reshape(-1)
    if reduction == "none":
        return losses.view(labels.shape)
    if n_items is not None:
        return losses.sum() / n_items
    return losses.sum() if reduction == "sum" else losses.sum() / counts.sum()
