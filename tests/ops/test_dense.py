"""Operands that repeat a row are copied out; others are the same tensor."""

from __future__ import annotations

import torch

from patcher.ops.dense import dense


def test_repeated_rows_and_columns_are_copied_out() -> None:
    """Equal to what they repeat, without a stride of 0."""
    for operand in (
        torch.arange(3.0).expand(4, 3),
        torch.arange(4.0)[:, None].expand(4, 3),
        torch.tensor(2.0).expand(5),
        torch.arange(3.0).expand(2, 4, 3),
    ):
        copied = dense(operand)
        assert torch.equal(copied, operand) and 0 not in copied.stride()


def test_others_are_left_alone() -> None:
    """Transposed ones too, those that repeat a row once, and a matrix for a whole batch."""
    whole = torch.arange(12.0).view(4, 3)
    batch = whole.expand(64, 4, 3)
    for operand in (whole, whole.t(), whole[:, ::2], whole[:1].expand(1, 3), torch.tensor(1.0), batch):
        assert dense(operand) is operand
