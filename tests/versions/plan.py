"""What every release is put to, and how exact it has to be."""

from __future__ import annotations

from patcher.engine.requirements import GEMMA_2

RUNS = (
    ("sft", "float32"),
    ("sft_gemma2", "float32"),
    ("dpo", "float32"),
    ("grpo_even", "bfloat16"),
    ("sft", "bfloat16"),
    ("sft", "nf4-bfloat16"),
)
"""Kinds of `tests.e2e.trainers_setup`, 6 steps each, 14 of GRPO, with a LoRA on two layers 128 wide. GRPO in bf16:
releases before August 2026 score completions in 16 bit whatever the model is in."""


def exact(precision: str) -> str:
    """The precision in which a base of so many bits is computed with in fp32."""
    return "nf4" if precision.startswith("nf4") else "float32"


SAVED = (("sft", "float32"), ("sft_gemma2", "float32"))
"""The trained models that answer and are saved."""

PROMPTS = ("The old engineer", "Nobody here will not sell the quiet")
TOKENS = 24

LOSS = {"float32": 1e-4, "bfloat16": 1e-2, "nf4-bfloat16": 1e-2}
"""Of a loss beside that of the formula in fp32, relative. fp32: rounding alone gives 1e-6. bf16: the logits of a text
are rounded by 2^-9 each, in two layers, and some of it cancels in the mean of a hundred tokens."""
GRADIENT = 1e-3
"""Of the first gradients in fp32, relative: rounding gives 1e-6."""
LOGGED = 5e-5
"""transformers before 5 rounds the losses that it logs to four decimals."""
ADVANTAGE = 1e-4
"""Absolute: they are of the order of 1."""
LOG_PROB = 0.1
"""Of a sampled token's log-probability, absolute: a logit of 4 to 8 is rounded by 2^-6 in bf16, and so is what it is
computed from, in two layers."""
REWARD = 0.3
"""What GRPO's reward rises to, from the 1/16 of chance: the mean of the last four steps."""
MERGED = 0.05
"""Of the merged model's logits beside those of base and adapter, relative: its weights have 16 bit."""

BEGINS = 2e-2
"""Of the demo's first losses beside the model's own in fp32, relative. They are means over 70 tokens, of which rounding
to bf16 decides a few: the loss of one is 2.0 in fp32, and 0.3, 1.8, 2.2 and 2.5 on the CPU with four ways of computing
in bf16. Three such tokens move the mean by so much; one token more in each answer moves it by 1e-1."""
LEARNS = 0.9
"""What is left of the demo's loss in the last five of its steps, of that of the first five."""


FAULTS = {"sft_gemma2": GEMMA_2}
"""By kind of the runs in which they show: what releases do wrong on every device, of which `import unsloth` warns."""
