"""The losses of the trainers as plain formulas, one unpadded row at a time, on the CPU without patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, logsigmoid

Batch = dict[str, Tensor]
Model = Any
BETA, GAMMA = 0.5, 0.5


def row_of(ids: Tensor, mask: Tensor) -> Tensor:
    """The tokens of a row that are no padding."""
    return ids[mask.bool()]


def token_log_probs(model: Model, ids: Tensor) -> Tensor:
    """log p(token | what comes before it) of every token but the first."""
    logits = model(input_ids=ids[None]).logits[0, :-1]
    return log_softmax(logits.float(), -1).gather(-1, ids[1:, None])[:, 0]


def labelled(model: Model, ids: Tensor, labels: Tensor) -> Tensor:
    """The log-probabilities of the tokens with a label."""
    return token_log_probs(model, ids)[labels[1:] != -100]


def side(model: Model, batch: Batch, name: str) -> list[Tensor]:
    """Of every row: the log-probabilities of the tokens of its chosen or rejected answer."""
    masks, ids, labels = (batch[f"{name}_{part}"] for part in ("attention_mask", "input_ids", "labels"))
    rows = zip(ids, labels, masks, strict=True)
    return [labelled(model, row_of(i, m), row_of(l, m)) for i, l, m in rows]


def stacked(rows: list[Tensor], how: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([how(row) for row in rows])


def orpo(model: Model, batch: Batch) -> Tensor:
    """L_SFT - beta log sigmoid(log odds(chosen) - log odds(rejected)), Hong et al. 2024, equations 6 and 7."""
    whole = [
        token_log_probs(model, row_of(ids, mask))
        for ids, mask in zip(batch["chosen_input_ids"], batch["chosen_attention_mask"], strict=True)
    ]
    chosen, rejected = (stacked(side(model, batch, name), torch.mean) for name in ("chosen", "rejected"))
    odds = [mean - torch.log1p(-mean.exp()) for mean in (chosen, rejected)]
    return -torch.cat(whole).mean() - BETA * logsigmoid(odds[0] - odds[1]).mean()


def cpo(model: Model, batch: Batch) -> Tensor:
    """-log sigmoid(beta (log p(chosen) - log p(rejected))) + NLL(chosen), Xu et al. 2024, equations 3 and 5."""
    chosen, rejected = (side(model, batch, name) for name in ("chosen", "rejected"))
    margins = stacked(chosen, torch.sum) - stacked(rejected, torch.sum)
    return -logsigmoid(BETA * margins).mean() - torch.cat(chosen).mean()


def simpo(model: Model, batch: Batch) -> Tensor:
    """-log sigmoid(beta (mean log p(chosen) - mean log p(rejected)) - gamma), Meng et al. 2024, equation 6."""
    chosen, rejected = (stacked(side(model, batch, name), torch.mean) for name in ("chosen", "rejected"))
    return -logsigmoid(BETA * (chosen - rejected) - GAMMA).mean()


def reward(model: Model, batch: Batch) -> Tensor:
    """-log sigmoid(r(chosen) - r(rejected)), Bradley and Terry; the first half of the rows was chosen."""
    rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
    scores = torch.stack([model(input_ids=row_of(ids, mask)[None]).logits[0, 0] for ids, mask in rows])
    chosen, rejected = scores.chunk(2)
    return -logsigmoid(chosen - rejected).mean()


def _completions(model: Model, batch: Batch, prefix: str) -> Tensor:
    parts = (batch[f"{prefix}{name}"] for name in ("input_ids", "attention_mask", "completion_mask"))
    rows = zip(*parts, strict=True)
    return torch.stack([token_log_probs(model, row_of(i, m))[row_of(c, m)[1:].bool()].sum() for i, m, c in rows])


def with_reference(model: Model, batch: Batch) -> Batch:
    """The batch with the log-ratios' denominators, from the model as it is now."""
    with torch.no_grad():
        prefixes = ("", "KL_") if "KL_input_ids" in batch else ("",)
        return {**batch, **{f"{prefix}reference": _completions(model, batch, prefix) for prefix in prefixes}}


def dpo(model: Model, batch: Batch) -> Tensor:
    """-log sigmoid(beta (log-ratio(chosen) - log-ratio(rejected))), Rafailov et al. 2023, equation 7."""
    chosen, rejected = (_completions(model, batch, "") - batch["reference"]).chunk(2)
    return -logsigmoid(BETA * (chosen - rejected)).mean()


def kto(model: Model, batch: Batch) -> Tensor:
    """1 - sigmoid(+-beta (log-ratio - z)), z = max(0, mean log-ratio of mismatched pairs), Ethayarajh 2024, eq. 7."""
    with torch.no_grad():
        z = (_completions(model, batch, "KL_") - batch["KL_reference"]).mean().clamp(min=0)
    ratios = _completions(model, batch, "") - batch["reference"]
    signs = torch.where(batch["label"].bool(), 1.0, -1.0)
    return (1 - torch.sigmoid(BETA * signs * (ratios - z))).mean()


def sft(model: Model, batch: Batch) -> Tensor:
    """Mean cross entropy of the labelled tokens, each text by itself."""
    return -torch.cat([labelled(model, ids, labels) for ids, labels in texts_of(batch)]).mean()


def texts_of(batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """The texts and their labels, apart: rows without their padding, or rows of several texts, at whose begin positions
    are 0 again."""
    if "attention_mask" in batch:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            yield row_of(ids, mask), row_of(labels, mask)
        return
    for ids, labels, positions in zip(batch["input_ids"], batch["labels"], batch["position_ids"], strict=True):
        starts = [*(positions == 0).nonzero()[:, 0].tolist(), len(ids)]
        for begin, end in pairwise(starts):
            yield ids[begin:end], labels[begin:end]


def seq2seq(model: Model, batch: Batch) -> Tensor:
    """Mean cross entropy of the decoder's tokens."""
    logits, labels = [], []
    for ids, mask, label in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        target = label[label != -100]
        logits.append(model(input_ids=row_of(ids, mask)[None], labels=target[None]).logits[0])
        labels.append(target)
    return cross_entropy(torch.cat(logits), torch.cat(labels))


LOSSES: dict[str, Callable[[Model, Batch], Tensor]] = {
    "dpo": dpo,
    "dpo_peft_config": dpo,
    "kto": kto,
    "orpo": orpo,
    "cpo": cpo,
    "simpo": simpo,
    "reward": reward,
    "sft_packing": sft,
    "sft": sft,
    "trainer": sft,
    "sft_padding_free": sft,
    "sft_peft_config": sft,
    "sft_completion": sft,
    "sft_assistant": sft,
    "sft_responses": sft,
    "seq2seq": seq2seq,
}


def trained_losses(kind: str, model: nn.Module, batches: list[Batch], rate: float) -> list[float]:
    """The loss before every step of AdamW."""
    if kind in ("dpo", "kto"):
        batches = [with_reference(model, batch) for batch in batches]
    if kind == "dpo_peft_config":
        with model.disable_adapter():  # type: ignore[operator]
            batches = [with_reference(model, batch) for batch in batches]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    losses = []
    for batch in batches:
        loss = LOSSES[kind](model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
