"""How many rows the trainers that Unsloth generates score at once."""

from __future__ import annotations

import torch


def autotune_batch_and_chunks(total_input_rows, seq_len, hidden_size, vocab_size, dtype_bytes=16, multiplier=None):  # type: ignore[no-untyped-def]
    """The most rows whose hidden states and logits fit into 4/5 of the free memory, and the chunks of the logits.

    Its source becomes part of every generated trainer, so it uses nothing but torch. b rows take b seq_len hidden_size
    and b^2 / total_input_rows / chunks seq_len vocab_size numbers of ``dtype_bytes``, as upstream estimates it; where
    not even one row fits it is 4 rows, as upstream has it.
    """
    chunks = max(4, seq_len // 4096) if multiplier is None else multiplier
    room = torch.cuda.mem_get_info()[0] * 4 / 5
    hidden = seq_len * hidden_size * dtype_bytes
    logits = seq_len * vocab_size * dtype_bytes / max(total_input_rows, 1) / chunks
    for rows in range(total_input_rows, 0, -1):
        if rows * hidden + rows * rows * logits <= room:
            return rows, chunks
    return max(1, min(4, total_input_rows)), chunks
