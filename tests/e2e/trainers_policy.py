"""The formulas of GRPO and RLOO on the completions that a trainer sampled, one unpadded row at a time, on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.e2e.trainers_data import GROUP, KL
from tests.e2e.trainers_formulas import row_of, token_log_probs


def completions(scored: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Prompts and completions without their padding."""
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    return [(row_of(p, pm), row_of(c, cm)) for p, pm, c, cm in zip(*(scored[name] for name in names), strict=True)]


def log_probs(model: Any, scored: dict[str, Tensor]) -> list[Tensor]:
    """log p of every token of every completion."""
    return [token_log_probs(model, torch.cat(pair))[len(pair[0]) - 1 :] for pair in completions(scored)]


def advantages(scored: dict[str, Tensor], kind: str, divergence: Tensor) -> Tensor:
    """GRPO: Shao et al. 2024, section 4.1.2. RLOO: Ahmadian et al. 2024, equation 4, with the KL in the reward."""
    rewards = torch.stack([(ids % 16 == 0).float().mean() for _, ids in completions(scored)])
    if kind == "grpo":
        groups = rewards.view(-1, GROUP)
        return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).flatten()
    groups = (rewards - KL * divergence).view(-1, GROUP)
    others = (groups.sum(1, keepdim=True) - groups) / (GROUP - 1)
    return (groups - others).flatten()


def policy_loss(kind: str, now: list[Tensor], before: list[Tensor], advantage: Tensor) -> Tensor:
    """Before the first update, when the ratio of policies is 1: GRPO's equation 3, with the KL weighted by the ratio
    (``use_bias_correction_kl``, TRL's default); RLOO's equation 3 with PPO's ratio."""
    losses = []
    for new, old, weight in zip(now, before, advantage, strict=True):
        if kind == "rloo":
            losses.append(-weight * (new.sum() - new.sum().detach()).exp())
        else:
            ratio, divergence = (new - new.detach()).exp(), (old - new).exp() - (old - new) - 1
            losses.append((ratio * (KL * divergence - weight)).mean())
    return torch.stack(losses).mean()


def aligned(scored: dict[str, Tensor]) -> list[Tensor]:
    """The reference log-probabilities by completion; Unsloth moves the padding of the prompts to the right end."""
    rows = scored["ref_per_token_logps"]
    padding = (scored["prompt_mask"] == 0).sum(1)
    width = rows.shape[1] - scored["completion_ids"].shape[1]
    return [row[width - shift :] if width else row for row, shift in zip(rows, padding.tolist(), strict=True)]
