"""Cross entropy of a head's rows, statistics of their softmax, and gradients, by tiles of logits in bounded memory.

For a row with label ``c``, over the vocabulary ``j``, with ``z = transform(hidden @ weight.T + bias)`` (see
`patcher.ops.logit_tiles.LogitTransform`)::

    log_z = log sum_j exp(z_j)             nll  = log_z - z_c         eps: label smoothing, k: z-loss
    loss  = (1 - eps) nll + eps (log_z - mean_j z_j) + k log_z^2

    d loss / d z_j = p_j (1 + 2 k log_z) - (1 - eps) [j = c] - eps / V          p_j = exp(z_j - log_z)

The label's own logit stays out of the walk over the vocabulary: it is a product in fp32, its loss is
``softplus(log sum_{j != c} exp(z_j) - z_c)`` and its gradient ``expm1(-nll)``, exact where the label is almost certain.
Sums over the others are folded tile by tile (Milakov and Gimelshein, "Online normalizer calculation for softmax",
2018), and so is the gradient of a hidden state, which is a sum over the vocabulary weighted by the softmax, as
attention's output is (Dao et al., "FlashAttention", 2022). Products are in the compute dtype, everything else is in
fp32, also the sums of gradients over tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from patcher.ops.bounded_tiles import Tiles, add_product_
from patcher.ops.logit_tiles import Gradients, Head
from patcher.ops.row_chunks import row_chunks
from patcher.ops.softmax_tile import Gradient, Sums, fold_, gradient_


@dataclass(frozen=True)
class Terms:
    """What is added to the loss: label smoothing in ``[0, 1]``, and the factor of ``log_z ** 2``."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0


STATISTICS = ("entropy", "mean", "log_sum_square", "is_top1")
"""What `cross_entropy_rows` gives besides, by name."""


class Rows(NamedTuple):
    """Of each row that counts, ``[n]`` fp32 where nothing else is said; None where it was not asked for.

    ``entropy`` is that of the softmax, ``mean`` that of ``z``, ``log_sum_square`` is ``log sum_j p_j^2``, ``is_top1``,
    bool, whether no token is likelier than the label. ``gradient``, ``[n, H]``, is that of ``losses``.
    """

    losses: Tensor
    nll: Tensor
    log_z: Tensor
    entropy: Tensor | None = None
    mean: Tensor | None = None
    log_sum_square: Tensor | None = None
    is_top1: Tensor | None = None
    gradient: Tensor | None = None


SUMS = {"mean": "z", "entropy": "z_exp", "log_sum_square": "square"}
"""The sums that statistics are made of."""


@torch.no_grad()
def cross_entropy_rows(
    head: Head,
    labels: Tensor,
    index: Tensor | None = None,
    terms: Terms = Terms(),
    *,
    wanted: tuple[str, ...] = (),
    gradient: torch.dtype | None = None,
    factor: Tensor | float = 1.0,
) -> Rows:
    """The quantities of the module's docstring, for the rows that count.

    Args:
        head: hidden states ``[N, H]``, weight ``[V, H]`` and what happens to the logits.
        labels: ``[n]`` int64 in ``[0, V)``.
        index: ``[n]``, which rows of the hidden states they belong to; None for all.
        terms: what is added to the loss. With label smoothing no gradient can be had here.
        wanted: which of `STATISTICS`.
        gradient: the dtype in which the gradient of the rows' own losses is wanted; None for none.
        factor: what the gradient is multiplied by before it is rounded, ``[]`` if a tensor.
    """
    if gradient is not None and terms.label_smoothing:
        raise ValueError("the gradient of a smoothed loss takes cross_entropy_rows_backward")
    tiles = Tiles(head, labels, index, second=bool({"entropy", "log_sum_square"} & set(wanted)))
    whole = None
    if gradient is not None:
        whole = torch.empty(len(labels), head.hidden.size(1), dtype=gradient, device=labels.device)
    blocks = []
    for first, last in list(tiles.blocks()) or [(0, 0)]:
        total = None if whole is None else _fp32_zeros(whole[first:last])
        blocks.append(_block(tiles, first, last, terms, wanted, total, factor))
        if whole is not None and total is not None and total.dtype != whole.dtype:
            whole[first:last] = total
    columns = [None if column[0] is None else torch.cat(column) for column in zip(*blocks, strict=True)]
    return Rows(*columns)._replace(gradient=whole)  # type: ignore[arg-type]


def _fp32_zeros(block: Tensor) -> Tensor:
    """Zeros to sum up in: the block itself where it is fp32."""
    return block.zero_() if block.dtype == torch.float32 else torch.zeros_like(block, dtype=torch.float32)


def _block(
    tiles: Tiles,
    first: int,
    last: int,
    terms: Terms,
    wanted: tuple[str, ...],
    gradient: Tensor | None,
    factor: Tensor | float,
) -> Rows:
    """What is known of a block of rows; ``gradient``, zeros in fp32, becomes theirs times ``factor``."""
    head, rows, transform = tiles.head, tiles.rows(first, last), tiles.head.transform
    of_labels = head.weight.index_select(0, tiles.labels[first:last]).to(head.compute_dtype)
    z_label, slope_label = tiles.label_logits(rows, of_labels, first, last)
    places = tiles.places(first, last)
    names = ("mean", *wanted) if terms.label_smoothing else wanted
    rivals = Sums.of_nothing(last - first, rows.device, tuple({SUMS[name] for name in names if name in SUMS}))
    for number, start, end in tiles.pieces():
        weight = head.columns(start, end)
        y = tiles.product(rows, weight)
        rescale = fold_(y, places[number], tiles.bias(start, end), transform, rivals, weights=gradient is not None)
        if gradient is not None:
            add_product_(gradient.mul_(rescale[:, None]), y, weight)
    found = _found(rivals, z_label, len(head.weight), terms, wanted)
    if gradient is not None:
        of_label = _at_label(found.nll, found.log_z, len(head.weight), terms) * slope_label * factor
        of_rivals = torch.exp(rivals.maximum - found.log_z) * (transform.factor * factor)
        if terms.z_loss:
            of_rivals.mul_(_at_tokens(found.log_z, terms))
        tiles.add_labels_(gradient.mul_(of_rivals[:, None]), of_labels, of_label)
    return found


def _found(rivals: Sums, z_label: Tensor, vocabulary: int, terms: Terms, wanted: tuple[str, ...]) -> Rows:
    """What the sums over the other tokens and the label's own ``z`` give."""
    log_rivals = rivals.total.log().add_(rivals.maximum)
    nll, log_z = softplus(log_rivals - z_label), torch.logaddexp(log_rivals, z_label)
    p_label, p_maximum = torch.exp(-nll), torch.exp(rivals.maximum - log_z)
    entropy = mean = log_sum_square = None
    if rivals.z is not None:
        mean = rivals.z / vocabulary
    if rivals.z_exp is not None:
        entropy = log_z - p_maximum * rivals.z_exp - p_label * z_label
    if rivals.square is not None:
        log_sum_square = (p_maximum.square() * rivals.square + p_label.square()).log()
    losses = _losses(nll, log_z, mean, terms)
    is_top1 = z_label >= rivals.maximum if "is_top1" in wanted else None
    return Rows(losses, nll, log_z, entropy, mean if "mean" in wanted else None, log_sum_square, is_top1)


def _losses(nll: Tensor, log_z: Tensor, mean: Tensor | None, terms: Terms) -> Tensor:
    losses = nll if mean is None else nll.lerp(log_z - mean, terms.label_smoothing)
    return losses if not terms.z_loss else losses.addcmul(log_z, log_z, value=terms.z_loss)


def _at_tokens(log_z: Tensor, terms: Terms) -> Tensor:
    """What a token's probability is multiplied by in its gradient, where there is a z-loss."""
    return 1 + 2 * terms.z_loss * log_z


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
    *,
    grad_entropy: Tensor | None = None,
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
        grad_entropy: ``[n]`` fp32, of ``rows.entropy``; None counts as zero. It takes terms that add nothing.

    Returns:
        Each in its tensor's dtype, None where not wanted. The hidden states' has their shape, also where rows were left
        out.
    """
    tiles = Tiles(head, labels, index, second=grad_entropy is not None)
    if grad_entropy is None:
        scale = _largest(grad_losses)
        of_rows, factor = _of_loss(rows, terms, len(head.weight)), grad_losses / scale
    else:
        scale = _largest(torch.stack((grad_losses, grad_entropy)))
        of_rows = _of_entropy(rows, grad_losses / scale, grad_entropy / scale)
        factor = torch.ones_like(grad_losses)
    gradients = _Gradients(tiles, factor, output_mask)
    places = [tiles.places(first, last) for first, last in tiles.blocks()]
    for number, start, end in tiles.pieces():
        weight, bias = head.columns(start, end), tiles.bias(start, end)
        for block, (first, last) in enumerate(tiles.blocks()):
            y = tiles.product(tiles.rows(first, last), weight)
            gradient_(y, places[block][number], bias, head.transform, of_rows.of(slice(first, last)))
            gradients.add(y, weight, slice(first, last))
        gradients.finish(slice(start, end), scale)
    return gradients.hidden(scale), gradients.weight, gradients.bias


@torch.no_grad()
def label_nll(head: Head, labels: Tensor, log_z: Tensor) -> Tensor:
    """``nll`` ``[n]``, where only ``log_z`` was kept; less exact than `cross_entropy_rows` where a label is certain."""
    tiles, nll = Tiles(head, labels, None), torch.empty_like(log_z)
    for first, last in tiles.blocks():
        of_labels = head.weight.index_select(0, labels[first:last]).to(head.compute_dtype)
        nll[first:last] = log_z[first:last] - tiles.label_logits(tiles.rows(first, last), of_labels, first, last)[0]
    return nll.clamp_min_(0)


def _largest(values: Tensor) -> Tensor:
    """The largest absolute value, ``[]``; never 0."""
    if not values.numel():
        return values.new_ones(())
    return values.abs().amax().clamp_min_(torch.finfo(torch.float32).tiny)


def _of_loss(rows: Rows, terms: Terms, vocabulary: int) -> Gradient:
    """Of rows' losses by their ``z``."""
    return Gradient(
        rows.log_z,
        _at_label(rows.nll, rows.log_z, vocabulary, terms),
        a=_at_tokens(rows.log_z, terms) if terms.z_loss else None,
        c=terms.label_smoothing / vocabulary,
    )


def _of_entropy(rows: Rows, of_losses: Tensor, of_entropy: Tensor) -> Gradient:
    """Of ``a loss + b entropy`` by ``z``: ``p_j (a - b (log p_j + entropy)) - a [j = c]``."""
    entropy = rows.log_z if rows.entropy is None else rows.entropy
    at_label = torch.exp(-rows.nll) * of_entropy * (rows.nll - entropy) + of_losses * torch.expm1(-rows.nll)
    return Gradient(rows.log_z, at_label, of_losses - of_entropy * entropy, -of_entropy)


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
        """Takes in a tile of gradients of ``y``."""
        if self._hidden is not None:
            add_product_(self._hidden[part], tile, weight)
        if self._columns is not None and self._scaled is not None:
            add_product_(self._columns[: len(weight)], tile.t(), self._scaled[part])
        if self._biases is not None:
            self._biases[: len(weight)] += (tile * self._factor[part, None]).sum(0)

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
