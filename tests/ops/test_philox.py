"""The generator against its authors' known answers, and the mask of dropout."""

from __future__ import annotations

import math

import pytest
import torch

from patcher.ops.philox import dropped, philox, threshold

ANSWERS = [
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, 2**64 - 1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""``philox4x32 10`` of ``kat_vectors`` in Random123: counter, key, words."""


@pytest.mark.parametrize("counter, key, words", ANSWERS)
def test_the_known_answers(counter: tuple[int, ...], key: int, words: tuple[int, ...]) -> None:
    a, b, c, d = (torch.tensor([word]) for word in counter)
    assert tuple(word.item() for word in philox((a, b, c, d), key)) == words


def test_a_part_of_the_mask_is_that_part() -> None:
    whole = dropped(0.3, 7, slice(0, 2), slice(0, 3), slice(0, 5), slice(0, 23), torch.device("cpu"))
    for first in range(6):
        part = dropped(0.3, 7, slice(1, 2), slice(1, 3), slice(2, 5), slice(first, 17), torch.device("cpu"))
        assert torch.equal(part, whole[1:2, 1:3, 2:5, first:17])


def test_how_many_are_dropped_and_that_they_are_others_for_another_seed_head_or_row() -> None:
    """Within 5 standard deviations of a binomial distribution; two masks agree as often as independent ones do."""
    p, n = 0.1, 64 * 1024
    mask = dropped(p, 1, slice(0, 1), slice(0, 2), slice(0, 32), slice(0, 2048), torch.device("cpu"))[0]
    assert abs(mask[0].sum().item() - n * p) < 5 * math.sqrt(n * p * (1 - p))
    other = dropped(p, 2, slice(0, 1), slice(0, 1), slice(0, 32), slice(0, 2048), torch.device("cpu"))[0, 0]
    both = p * p
    for first, second in ((mask[0], mask[1]), (mask[0], other), (mask[0, ::2], mask[0, 1::2])):
        assert abs((first & second).sum().item() - first.numel() * both) < 5 * math.sqrt(first.numel() * both)


def test_thresholds() -> None:
    assert [threshold(p) for p in (0, 0.5, 1)] == [0, 2**31, 2**32]
