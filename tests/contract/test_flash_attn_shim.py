"""The flash_attn shim computes what flash-attn defines, under the names that libraries and scripts import."""

from __future__ import annotations

import fnmatch
import importlib
import importlib.metadata
import importlib.util
import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patcher.changes.flash_attn.shim import CHANGES
from patcher.errors import NotOnMac
from tests.contract.surface import names_read, resolves
from tests.ops.attention import tensors

READERS = ("trl", "unsloth", "unsloth_zoo", "transformers", "peft", "accelerate", "sentence_transformers")

NOT_NEEDED = {
    "flash_attn.cute*": "FlashAttention 4, read under except",
    "flash_attn.flash_attn_interface.flash_attn_cuda": "CUDA and ROCm only",
    "flash_attn.flash_attn_interface.flash_attn_gpu": "CUDA and ROCm only",
    "flash_attn.flash_attn_with_kvcache": "decoding on CUDA, and transformers' _lazy_imports, which is replaced",
}

SIGNATURES = {
    "flash_attn_func": "q k v",
    "flash_attn_kvpacked_func": "q kv",
    "flash_attn_qkvpacked_func": "qkv",
    "flash_attn_varlen_func": "q k v cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k",
    "flash_attn_varlen_kvpacked_func": "q kv cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k",
    "flash_attn_varlen_qkvpacked_func": "qkv cu_seqlens max_seqlen",
}
REST = "dropout_p softmax_scale causal window_size softcap alibi_slopes deterministic return_attn_probs"


def expected(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal, the last query at the last key, as torch computes it with a mask."""
    queries, keys = q.shape[1], k.shape[1]
    seen = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    wide = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(*wide, attn_mask=seen, enable_gqa=True).transpose(1, 2)


def close(found: Any, exact: Tensor) -> None:
    """Sums of at most 9 terms in another order."""
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=2e-6)


def test_every_name_that_is_read_exists_or_says_why_not(flash_attn_shim: None) -> None:
    """A new upstream name is noticed: it is either in the shim or in NOT_NEEDED with a reason."""
    importlib.import_module("flash_attn.bert_padding")
    read = names_read("flash_attn", READERS)
    missing = {name: places[:3] for name, places in read.items() if not resolves(name)}
    assert not {n: p for n, p in missing.items() if not any(fnmatch.fnmatchcase(n, x) for x in NOT_NEEDED)}
    assert not [pattern for pattern in NOT_NEEDED if not fnmatch.filter(missing, pattern)]


def test_signatures_are_flash_attn_2s(flash_attn_shim: None) -> None:
    """Names and order of the parameters, as its README and sources have them; block_table is the last of varlen."""
    flash_attn = importlib.import_module("flash_attn")
    for name, first in SIGNATURES.items():
        last = " block_table" if name == "flash_attn_varlen_func" else ""
        assert list(inspect.signature(getattr(flash_attn, name)).parameters) == f"{first} {REST}{last}".split(), name


def test_rows_alone_and_in_one_tensor(flash_attn_shim: None) -> None:
    """Grouped heads, fewer queries than keys; and the same in tensors of two and of three."""
    flash_attn = importlib.import_module("flash_attn")
    q, k, v = tensors(torch.float32, (2, 5, 4, 8), (2, 9, 2, 8), (2, 9, 2, 8))
    close(flash_attn.flash_attn_func(q, k, v, causal=True), expected(q, k, v))
    close(flash_attn.flash_attn_kvpacked_func(q, torch.stack([k, v], 2), causal=True), expected(q, k, v))
    (same,) = tensors(torch.float32, (2, 6, 3, 4, 8))
    close(flash_attn.flash_attn_qkvpacked_func(same, causal=True), expected(*same.unbind(2)))


def test_packed_rows_alone_and_in_one_tensor(flash_attn_shim: None) -> None:
    """Each row as if it were alone, with a gradient."""
    flash_attn = importlib.import_module("flash_attn")
    (qkv,) = tensors(torch.float32, (10, 3, 4, 8))
    starts = torch.tensor([0, 3, 4, 10], dtype=torch.int32)
    rows = [expected(*(x[None] for x in row.unbind(1)))[0] for row in qkv.split((3, 1, 6))]
    leaf = qkv.clone().requires_grad_()
    found = flash_attn.flash_attn_varlen_qkvpacked_func(leaf, starts, 6, causal=True)
    close(found, torch.cat(rows))
    found.sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().sum() > 0
    lengths = (starts, starts, 6, 6)
    q, k, v = qkv.unbind(1)
    close(flash_attn.flash_attn_varlen_func(q, k, v, *lengths, causal=True), torch.cat(rows))
    close(flash_attn.flash_attn_varlen_kvpacked_func(q, torch.stack([k, v], 1), *lengths, causal=True), torch.cat(rows))


def test_probabilities_are_their_logs_of_sums(flash_attn_shim: None) -> None:
    """``return_attn_probs`` gives three values, of which the last is held by nobody."""
    flash_attn = importlib.import_module("flash_attn")
    q, k, v = tensors(torch.float32, (2, 5, 2, 8), (2, 7, 2, 8), (2, 7, 2, 8))
    out, lse, probabilities = flash_attn.flash_attn_func(q, k, v, return_attn_probs=True)
    scores = (q.transpose(1, 2) @ k.transpose(1, 2).mT) * 8**-0.5
    close(lse, scores.logsumexp(-1))
    close(out, (scores.softmax(-1) @ v.transpose(1, 2)).transpose(1, 2))
    assert probabilities is None


def test_padding_goes_and_comes_back(flash_attn_shim: None) -> None:
    """What `bert_padding` says of a mask, and that tokens come back to their places, with their gradients."""
    padding = importlib.import_module("flash_attn.bert_padding")
    (hidden,) = tensors(torch.float32, (3, 4, 2))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]])
    leaf = hidden.clone().requires_grad_()
    tokens, indices, starts, longest, counting = padding.unpad_input(leaf, mask)
    assert torch.equal(tokens, hidden[mask.bool()]) and indices.tolist() == [0, 1, 4, 5, 6, 7, 9, 10]
    assert starts.tolist() == [0, 2, 6, 8] and starts.dtype == torch.int32
    assert longest == 4 and counting.tolist() == [2, 4, 2]
    back = padding.pad_input(tokens, indices, 3, 4)
    assert torch.equal(back, hidden * mask[..., None])
    back.sum().backward()
    assert torch.equal(leaf.grad, mask[..., None].expand(3, 4, 2).float())
    assert torch.equal(padding.index_first_axis(hidden.flatten(0, 1), indices), tokens)
    unused = torch.tensor([[0, 0, 1, 0], [0] * 4, [0] * 4])
    _, _, starts, _, counting = padding.unpad_input(hidden, mask, unused)
    assert starts.tolist() == [0, 3, 7, 9] and counting.tolist() == [2, 4, 2]


def test_what_has_no_counterpart_is_refused(flash_attn_shim: None) -> None:
    """No silent other result, and no ImportError, which guards would swallow."""
    flash_attn = importlib.import_module("flash_attn")
    q = torch.ones(1, 2, 1, 4)
    with pytest.raises(NotOnMac, match="alibi_slopes"):
        flash_attn.flash_attn_func(q, q, q, alibi_slopes=torch.ones(1))


def test_halves_of_attention_can_be_imported(flash_attn_shim: None) -> None:
    """As diffusers 0.36 does with no guard wherever flash_attn is found: otherwise it could not be imported itself."""
    interface = importlib.import_module("flash_attn.flash_attn_interface")
    for name in ("_wrapped_flash_attn_forward", "_wrapped_flash_attn_backward"):
        with pytest.raises(NotOnMac, match=name):
            getattr(interface, name)(*[torch.ones(1, 2, 1, 4)] * 3, 0.0, 1.0, True)


def test_the_norm_is_torchs(flash_attn_shim: None) -> None:
    norm = importlib.import_module("flash_attn.ops.triton.layer_norm")
    x, weight = tensors(torch.bfloat16, (3, 8), (8,))
    found = norm.rms_norm_fn(x, weight, None, eps=1e-5)
    exact = F.rms_norm(x.double(), (8,), weight.double(), 1e-5)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=0)


def test_module_metadata_and_change_agree(flash_attn_shim: None) -> None:
    """find_spec, importlib.metadata and ``__version__`` give one answer, under both spellings of the name."""
    flash_attn = importlib.import_module("flash_attn")
    spec = importlib.util.find_spec("flash_attn")
    assert flash_attn.__version__ == CHANGES[0].version == importlib.metadata.version("flash_attn")
    assert importlib.metadata.version("flash-attn") == flash_attn.__version__
    assert spec is not None and "shims" in str(spec.origin)
    assert importlib.util.find_spec("flash_attn.flash_attn_interface") is not None
    assert importlib.util.find_spec("flash_attn.cute") is None
