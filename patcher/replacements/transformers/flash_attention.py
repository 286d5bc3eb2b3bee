"""FlashAttention as transformers asks for it, by `patcher.ops.attention`, in every dtype and on every device."""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from patcher.engine.ledger import LEDGER, original
from patcher.ops.attention import Pattern, attention, attention_varlen
from patcher.ops.flash_attention import pattern_of

_LOGGER = logging.getLogger("patcher")
_UTILS = "transformers.modeling_flash_attention_utils"
_MODEL = "transformers.modeling_utils:PreTrainedModel"
_OF_CUDA = re.compile(r"/.*flash-?_?(attn|attention)", re.IGNORECASE)
"""kernels-community/flash-attn2, flash-attn3, vllm-flash-attn3; not metal-flash-sdpa."""

Starts = tuple[Tensor, Tensor, int, int]
"""Cumulative lengths of queries and keys, int32 ``[rows + 1]``, and bounds of the lengths."""


def flash_attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Output ``[batch, queries, heads, head]`` for query ``[batch, heads, queries, head]``, grouped key and value.

    ``attention_mask`` is 0 where a key ``[batch, keys]`` is padding. Without one a single row may be several texts: its
    ``position_ids`` begin anew, or ``cu_seq_lens_q`` and its like are given.
    """
    if 0 in query.shape or (attention_mask is not None and attention_mask.dim() != 2):
        forward = original("transformers.integrations.flash_attention:flash_attention_forward")
        given = (dropout, scaling, sliding_window, softcap)
        upstream: tuple[Tensor, None] = forward(module, query, key, value, attention_mask, *given, **kwargs)
        return upstream
    query, key, value = _of_one_dtype(query, key, value)
    causal = module.is_causal if is_causal is None else is_causal
    if attention_mask is not None and key.shape[2] > attention_mask.shape[1]:  # a cache of a fixed size
        key, value = (x[:, :, : attention_mask.shape[1]] for x in (key, value))
    pattern = _pattern(query, key.shape[2], bool(causal), dropout, scaling, sliding_window, softcap)
    if attention_mask is None and (starts := _starts(query, key, kwargs)) is not None:
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
        out = attention_varlen(q, k, v, *starts, pattern, sinks=s_aux)
        return out.view(query.shape[0], -1, *out.shape[1:]), None
    seen = None if attention_mask is None else attention_mask.to(torch.bool)[:, None, None, :]
    return attention(query, key, value, pattern, bias=seen, sinks=s_aux).transpose(1, 2), None


def _of_one_dtype(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """As autocast hands them to torch's attention; norms in fp32 give queries of another dtype than values."""
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    return tuple(x.to(dtype) for x in (query, key, value))


def _pattern(
    query: Tensor,
    keys: int,
    causal: bool,
    dropout: float,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Pattern:
    """A window counts the query's own key, and reaches as far to the right where a query may see what follows."""
    reach = sliding_window - 1 if sliding_window is not None and keys > sliding_window else -1
    return pattern_of(
        query,
        dropout_p=dropout,
        softmax_scale=scaling,
        causal=causal,
        window_size=(reach, reach),
        softcap=softcap,
    )


def _starts(query: Tensor, key: Tensor, asked: dict[str, Any]) -> Starts | None:
    """Where the texts of a row begin; None where it is one text."""
    names = "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"
    given: list[Any] = [asked.get(name) for name in names]
    if all(value is not None for value in given):
        return LEDGER.memory(Rows).given(*given)
    positions = asked.get("position_ids")
    if positions is None or positions.dim() != 2 or positions.shape != (1, query.shape[2]) or query.shape[0] != 1:
        return None
    return LEDGER.memory(Rows).of(positions) if query.shape[2] == key.shape[2] else None


class Rows:
    """Where texts begin in the last batch that was asked for: the layers of a model ask for the same one."""

    def __init__(self) -> None:
        self._asked: tuple[Any, ...] = ()
        self._kept: tuple[Tensor, ...] = ()
        self._found: Starts | None = None

    def of(self, positions: Tensor) -> Starts | None:
        """From positions ``[1, T]`` that begin anew with each text; waits for the device."""
        return self._remembered((positions,), lambda: _begins(positions))

    def given(self, starts_query: Tensor, starts_key: Tensor, longest_query: Any, longest_key: Any) -> Starts:
        """From lengths; where queries and keys have the same ones that is told by one tensor. Waits for the device."""

        def found() -> Starts:
            same = torch.equal(starts_query, starts_key)
            return starts_query, starts_query if same else starts_key, int(longest_query), int(longest_key)

        starts = self._remembered((starts_query, starts_key), found)
        assert starts is not None
        return starts

    def _remembered(self, tensors: tuple[Tensor, ...], find: Callable[[], Starts | None]) -> Starts | None:
        # Checkpointing hands on other tensors of the same memory. What is kept cannot be freed and used anew.
        if any(x.is_inference() for x in tensors):  # which do not tell that they have been written to
            return find()
        asked = tuple((x.data_ptr(), x.shape, x._version) for x in tensors)
        if asked != self._asked:
            self._found = find()
            self._asked, self._kept = asked, tensors
        return self._found


def _begins(positions: Tensor) -> Starts | None:
    host = positions[0].cpu()
    lowest = host.min()
    if torch.equal(host, torch.arange(len(host)) + lowest):
        return None
    firsts = (host == lowest).nonzero().flatten().tolist()
    starts = torch.tensor([*dict.fromkeys([0, *firsts]), len(host)], dtype=torch.int32)
    longest = int(starts.diff().max())
    moved = starts.to(positions.device)
    return moved, moved, longest, longest


def take_packed_rows(model: Any, inputs: Any) -> None:
    """Gives a model FlashAttention where this batch is a row of several texts, for which torch's would need a mask.

    The mask has as many elements as the row has tokens, squared. A model that is not on mps, has another attention than
    torch's, or none of this kind, is left alone.
    """
    if not isinstance(inputs, Mapping) or inputs.get("attention_mask") is not None:
        return
    positions = inputs.get("position_ids")
    if not isinstance(positions, Tensor) or positions.dim() != 2 or len(positions) != 1:
        return
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    of_torch = getattr(getattr(base, "config", None), "_attn_implementation", None) == "sdpa"
    if of_torch and getattr(base, "_supports_flash_attn", False) and base.device.type == "mps":
        base.set_attn_implementation("flash_attention_2")
        LEDGER.on_undo(partial(_give_back_torchs, weakref.ref(base)))
        _LOGGER.info("patcher: %s takes flash_attention_2 for rows of several texts", type(base).__name__)


def _give_back_torchs(model: weakref.ref[Any]) -> None:
    """Torch's attention for a model that `take_packed_rows` gave FlashAttention, if it still has that."""
    left = model()
    if left is not None and left.config._attn_implementation == "flash_attention_2":
        left.set_attn_implementation("sdpa")


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
    s_aux: Tensor | None = None,
) -> Tensor:
    """flash-attn's function of rows ``[B, L, H, D]``, with sinks."""
    pattern = pattern_of(
        q, dropout_p=dropout_p, softmax_scale=softmax_scale, causal=causal, window_size=window_size, softcap=softcap
    )
    return attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), pattern, sinks=s_aux).transpose(1, 2)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
    s_aux: Tensor | None = None,
) -> Tensor:
    """flash-attn's function of packed rows ``[T, H, D]``, with sinks."""
    pattern = pattern_of(
        q, dropout_p=dropout_p, softmax_scale=softmax_scale, causal=causal, window_size=window_size, softcap=softcap
    )
    starts = LEDGER.memory(Rows).given(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    return attention_varlen(q, k, v, *starts, pattern, sinks=s_aux)


def _lazy_imports(
    implementation: str | None, attention_wrapper: Callable[..., Any] | None = None, allow_all_kernels: bool = False
) -> tuple[Any, ...]:
    """The functions of rows and of packed rows, in later releases that of caches (none), and those of padding."""
    name = (implementation or "flash_attention_2").rpartition("|")[2]
    if not (name.startswith("flash_attention_") or _OF_CUDA.search(name)):
        lazy_imports = original(f"{_UTILS}:_lazy_imports")
        upstream: tuple[Any, ...] = lazy_imports(implementation, attention_wrapper, allow_all_kernels)
        return upstream
    if "/" in name:
        load_and_register_attn_kernel(name, attention_wrapper)
    utils = import_module(_UTILS)
    LEDGER.on_undo(partial(_forget, utils))
    caches = (None,) if hasattr(utils, "_flash_with_kvcache_fn") else ()
    return flash_attn_func, flash_attn_varlen_func, *caches, utils._pad_input, utils._unpad_input


def _forget(utils: Any) -> None:
    """Lets transformers look for its functions anew, of which it has kept those of `_lazy_imports`."""
    if getattr(utils, "_flash_varlen_fn", None) is flash_attn_varlen_func:
        for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_process_flash_kwargs_fn"):
            setattr(utils, name, None)


def load_and_register_attn_kernel(
    attn_implementation: str, attention_wrapper: Callable[..., Any] | None = None, allow_all_kernels: bool = False
) -> Any:
    """As transformers', which downloads kernels; the name of one that is built for CUDA stands for what is here."""
    if not _OF_CUDA.search(attn_implementation):
        load = original("transformers.integrations.hub_kernels:load_and_register_attn_kernel")
        return load(attn_implementation, attention_wrapper, allow_all_kernels)
    functions = import_module("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS
    masks = import_module("transformers.masking_utils").ALL_MASK_ATTENTION_FUNCTIONS
    for table, function in (
        (functions, attention_wrapper or flash_attention_forward),
        (masks, masks["flash_attention_2"]),
    ):
        if attn_implementation not in table:
            LEDGER.on_undo(partial(table.__delitem__, attn_implementation))
        table[attn_implementation] = function
    return SimpleNamespace(flash_attn_func=flash_attn_func, flash_attn_varlen_func=flash_attn_varlen_func)


def _flash_attn_can_dispatch(self: Any, flash_attn_version: int, is_init_check: bool = False) -> bool:
    """Whether the model may take it: as transformers says of its class, and for no other reason."""
    if not self._supports_flash_attn:
        can = original(f"{_MODEL}._flash_attn_can_dispatch")
        upstream: bool = can(self, flash_attn_version, is_init_check)
        return upstream
    return True


def _flash_attn_2_can_dispatch(self: Any, is_init_check: bool = False) -> bool:
    """As `_flash_attn_can_dispatch`, before transformers 5."""
    return True if self._supports_flash_attn else _refused(self, 2, is_init_check)


def _flash_attn_3_can_dispatch(self: Any, is_init_check: bool = False) -> bool:
    """As `_flash_attn_can_dispatch`, before transformers 5."""
    return True if self._supports_flash_attn else _refused(self, 3, is_init_check)


def _refused(model: Any, version: int, is_init_check: bool) -> bool:
    upstream: bool = original(f"{_MODEL}._flash_attn_{version}_can_dispatch")(model, is_init_check)
    return upstream
