"""The sentences that the small models are trained on: short ones, and rows of chosen length made of them."""

from __future__ import annotations

SENTENCES = [
    f"{subject} {verb} {thing} {place}."
    for subject in ("The old engineer", "A patient reader", "My neighbour", "The second machine", "Nobody here")
    for verb in ("repairs", "describes", "remembers", "has measured", "will not sell")
    for thing in ("a small engine", "the green lamp", "seven letters", "an honest number", "the quiet river")
    for place in ("in the morning", "near the harbour", "without a map", "for the museum")
]


def rows(count: int, sentences: int) -> list[str]:
    """``count`` texts of 1 to ``sentences`` sentences each, the same at every call; the longest one comes first."""
    texts = []
    for index in range(count):
        length = sentences - (index * 7) % sentences
        picked = (SENTENCES[(index * 31 + step * 17) % len(SENTENCES)] for step in range(length))
        texts.append(" ".join(picked))
    return texts
