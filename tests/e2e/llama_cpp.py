"""llama.cpp itself, from the package xllamacpp, by its C interface: logits at every position, tokens, and codes.

The package's Python class gives log-probabilities, of one position at a time; its library exports llama.cpp's
functions. Layouts are those of llama.h in the pinned version; the defaults that llama.cpp fills in are checked.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

F32, F16 = 0, 1
WORDS = 64
"""32-bit words that a parameter structure is given: more than it has."""
N_CTX, N_THREADS, N_THREADS_BATCH, FLASH, TYPE_K, TYPE_V = 0, 7, 8, 13, 26, 27
"""Places of llama_context_params in 32-bit words."""


class Parameters(ctypes.Structure):
    """llama_model_params or llama_context_params: big structures go by a copy in memory, which may be longer."""

    _fields_ = [("words", ctypes.c_int32 * WORDS)]


class Batch(ctypes.Structure):
    """llama_batch."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


@functools.cache
def library() -> Any:
    """The library, with the results' types, silent."""
    from xllamacpp import xllamacpp

    found = ctypes.CDLL(xllamacpp.__file__)
    for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab"):
        getattr(found, name).restype = ctypes.c_void_p
    for name in ("llama_model_default_params", "llama_context_default_params"):
        getattr(found, name).restype = Parameters
    found.llama_batch_init.restype = Batch
    found.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    found.ggml_quantize_chunk.restype = ctypes.c_size_t
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    found.silent = silent
    found.llama_log_set(silent, None)
    return found


class Model:
    """A model in a GGUF file, on the CPU, one thread."""

    def __init__(self, path: Path) -> None:
        library().llama_backend_init()
        parameters = library().llama_model_default_params()
        self.pointer = library().llama_model_load_from_file(str(path).encode(), parameters)
        assert self.pointer, f"llama.cpp does not load {path}"
        self.vocabulary = ctypes.c_void_p(library().llama_model_get_vocab(ctypes.c_void_p(self.pointer)))
        self.size = library().llama_vocab_n_tokens(self.vocabulary)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        library().llama_model_free(ctypes.c_void_p(self.pointer))

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text; special tokens are recognised, none is added."""
        found, content = (ctypes.c_int32 * 4096)(), text.encode()
        count = library().llama_tokenize(self.vocabulary, content, len(content), found, 4096, False, True)
        assert count >= 0
        return list(found[:count])

    def text(self, tokens: list[int]) -> str:
        """What llama.cpp writes for tokens, special ones too."""
        given, found = (ctypes.c_int32 * len(tokens))(*tokens), ctypes.create_string_buffer(1 << 16)
        count = library().llama_detokenize(self.vocabulary, given, len(tokens), found, 1 << 16, False, True)
        assert count >= 0
        return found.raw[:count].decode()

    def _context(self) -> ctypes.c_void_p:
        """Keys and values kept in fp32, attention by its plain products."""
        parameters = library().llama_context_default_params()
        words = parameters.words
        assert (words[N_CTX], words[FLASH], words[TYPE_K], words[TYPE_V]) == (512, -1, F16, F16), list(words)
        words[FLASH], words[TYPE_K], words[TYPE_V] = 0, F32, F32
        words[N_THREADS] = words[N_THREADS_BATCH] = 1
        context = ctypes.c_void_p(library().llama_init_from_model(ctypes.c_void_p(self.pointer), parameters))
        assert context
        return context

    def _decode(self, context: ctypes.c_void_p, tokens: list[int], start: int) -> torch.Tensor:
        """Logits at every one of these positions, which follow what the context has."""
        batch = library().llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for index, token in enumerate(tokens):
            batch.token[index], batch.pos[index], batch.logits[index] = token, start + index, 1
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
        assert library().llama_decode(context, batch) == 0
        places = (library().llama_get_logits_ith(context, index) for index in range(len(tokens)))
        found = torch.from_numpy(np.stack([np.ctypeslib.as_array(place, (self.size,)) for place in places]))
        library().llama_batch_free(batch)
        return found

    def logits(self, tokens: list[int]) -> torch.Tensor:
        """Positions x vocabulary, fp32."""
        context = self._context()
        found = self._decode(context, tokens, 0)
        library().llama_free(context)
        return found

    def greedy(self, tokens: list[int], count: int, banned: tuple[int, ...] = ()) -> list[int]:
        """So many more tokens, each the likeliest that is not banned, one after the other."""
        context, made = self._context(), list(tokens)
        row = self._decode(context, tokens, 0)[-1]
        for _ in range(count):
            row[list(banned)] = -torch.inf
            made.append(int(row.argmax()))
            row = self._decode(context, made[-1:], len(made) - 1)[-1]
        library().llama_free(context)
        return made[len(tokens) :]


def codes(values: np.ndarray[Any, Any], kind: int, size: int, importance: np.ndarray[Any, Any] | None = None) -> bytes:
    """llama.cpp's own codes of rows of fp32 values; ``size`` is their length in bytes, ``importance`` is per column."""
    rows, pointer = np.ascontiguousarray(values, dtype=np.float32), ctypes.POINTER(ctypes.c_float)
    found, weights = ctypes.create_string_buffer(size), None
    if importance is not None:
        weights = np.ascontiguousarray(importance, dtype=np.float32)
    written = library().ggml_quantize_chunk(
        kind,
        rows.ctypes.data_as(pointer),
        found,
        ctypes.c_int64(0),
        ctypes.c_int64(rows.shape[0]),
        ctypes.c_int64(rows.shape[1]),
        None if weights is None else weights.ctypes.data_as(pointer),
    )
    assert written == size
    return found.raw
