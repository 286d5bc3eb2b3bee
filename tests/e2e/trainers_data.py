"""What the trainers are given, and the numbers that their formulas need."""

from __future__ import annotations

from tests.e2e.text import SENTENCES

STEPS, BATCH, RATE = 6, 2, 1e-3
GROUP, KL, PAD = 16, 0.01, 2


def pairs() -> dict[str, list[str]]:
    """The first words of sentences, their right ends, and the ends of others."""
    table: dict[str, list[str]] = {"prompt": [], "chosen": [], "rejected": []}
    for i in range(BATCH * STEPS):
        words, others = SENTENCES[7 * i].split(" "), SENTENCES[7 * i + 5].split(" ")
        cut = 2 + i % 3
        table["prompt"].append(" ".join(words[:cut]))
        table["chosen"].append(" " + " ".join(words[cut:]))
        table["rejected"].append(" " + " ".join(others[cut + i % 2 :]))
    return table


def chats() -> list[list[dict[str, str]]]:
    """Two questions and answers each."""
    return [
        [
            {"role": role, "content": SENTENCES[11 * i + 3 * turn]}
            for turn, role in enumerate(("user", "assistant", "user", "assistant"))
        ]
        for i in range(BATCH * STEPS)
    ]
