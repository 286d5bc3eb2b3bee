"""Neighbours in one storage are one tensor, and nothing else is."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from patcher.ops.runs import runs


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.sets(st.integers(0, 7)), st.randoms())
def test_every_element_is_there_once(sizes: list[int], left_out: set[int], random: object) -> None:
    """Parts of a buffer, some left out, in any order: what is added to the runs is added once to every part."""
    buffer = torch.zeros(sum(sizes))
    parts = list(torch.split(buffer, sizes))  # type: ignore[no-untyped-call]
    given_ = [part for place, part in enumerate(parts) if place not in left_out]
    random.shuffle(given_)  # type: ignore[attr-defined]
    found = runs(given_)
    for run in found:
        run.add_(1)
    assert all(part.eq(float(place not in left_out)).all() for place, part in enumerate(parts))
    begins = [place for place in range(len(sizes)) if place not in left_out and (not place or place - 1 in left_out)]
    assert len(found) == len(begins)


def test_neighbours_are_one_and_others_stay() -> None:
    buffer = torch.arange(24.0)
    first, second, third = buffer[:4].view(2, 2), buffer[4:10], buffer[10:16].view(3, 2)
    turned, other, wider = buffer[16:20].view(2, 2).t(), torch.ones(3), torch.arange(4, 8, dtype=torch.float64)
    found = {tuple(run.shape): run for run in runs([third, other, first, turned, wider, second])}
    assert found.keys() == {(16,), (2, 2), (3,), (4,)}
    assert torch.equal(found[(16,)], buffer[:16])
    assert found[(2, 2)] is turned and found[(3,)] is other and found[(4,)] is wider


def test_the_same_tensor_twice_stays_twice() -> None:
    part = torch.ones(4)
    assert len(runs([part, part])) == 2


def test_what_lies_side_by_side_in_another_dtype_is_not_joined() -> None:
    buffer = torch.zeros(8)
    assert len(runs([buffer[:4], buffer.view(torch.int32)[4:]])) == 2


def test_the_order_is_that_of_the_first_of_each_storage() -> None:
    """Not that of addresses, which differ from run to run: sums over the runs would differ in their last bits."""
    buffers = [torch.full((4,), float(place)) for place in range(12)]
    shuffled = [buffers[place] for place in (7, 2, 9, 0, 11, 4, 1, 8, 3, 10, 5, 6)]
    parts = [part for buffer in shuffled for part in (buffer[2:], buffer[:2])]
    assert [run.tolist() for run in runs(parts)] == [buffer.tolist() for buffer in shuffled]
    assert [run.data_ptr() for run in runs(shuffled)] == [buffer.data_ptr() for buffer in shuffled]
