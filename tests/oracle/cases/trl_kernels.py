"""TRL's three kernels through their autograd Functions."""

from __future__ import annotations

import torch
from trl.kernels import chunked_divergence as divergence_file
from trl.kernels import chunked_logprob as logprob_file
from trl.kernels.logprob_entropy import selective_log_softmax_and_entropy

from tests.oracle.halves import replaced


def chunked_logprob(hidden, weight, bias, targets, grads, tokens, autocast=None, **options):
    """The five outputs and the gradients of hidden, weight and bias; ``tokens`` is upstream's rows per tile."""
    logprob_file.TOKEN_CHUNK_SIZE = tokens
    leaves = [None if t is None else t.detach().requires_grad_() for t in (hidden, weight, bias)]
    with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
        outputs = logprob_file.ChunkedLogProbFunction.apply(*leaves, targets, *options["positional"])
    return _with_gradients(outputs, leaves, grads)


def chunked_logprob_with_one_half_replaced(half, *args, **kwargs):
    """The same with this project's ``forward`` or ``backward`` beside TRL's other half."""
    from patcher.replacements.trl import chunked_logprob as replacement

    with replaced(logprob_file.ChunkedLogProbFunction, replacement, half):
        return chunked_logprob(*args, **kwargs)


def chunked_divergence(student, teacher, beta, grad, tokens, vocabulary, options):
    """Divergence, entropy and the student's gradients."""
    divergence_file.TOKEN_CHUNK_SIZE, divergence_file.VOCAB_CHUNK_SIZE = tokens, vocabulary
    leaves = [None if t is None else t.detach().requires_grad_() for t in student]
    outputs = divergence_file.ChunkedDivergenceFunction.apply(*leaves, *teacher, beta, *options)
    return _with_gradients(outputs, leaves, [grad, None])


def logprob_entropy(logits, index, temperature, row_mask, grads):
    """Log-probabilities, entropy and the gradient of the logits."""
    leaf = logits.detach().requires_grad_()
    outputs = selective_log_softmax_and_entropy(leaf, index, temperature, row_mask)
    return _with_gradients(outputs, [leaf], grads)


def _with_gradients(outputs, leaves, grads):
    pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o is not None and g is not None]
    torch.autograd.backward([o for o, _ in pairs], [g for _, g in pairs])
    return [None if o is None else o.detach() for o in outputs], [None if x is None else x.grad for x in leaves]
