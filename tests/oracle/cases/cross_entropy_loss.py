"""Cross entropy through upstream's entry points."""

from __future__ import annotations

from unsloth.kernels import cross_entropy_loss

from tests.oracle.halves import replaced


def loss(logits, labels, dloss=1.0, **options):
    """``fast_cross_entropy_loss``: the loss, the logits' gradient, and the logits afterwards."""
    leaf = logits.requires_grad_()
    value = cross_entropy_loss.fast_cross_entropy_loss(leaf, labels, **options)
    (value * dloss).backward()
    return {"loss": value.detach(), "dlogits": leaf.grad, "logits": leaf.detach()}


def rows(logits, labels, dlosses, softcap=0, scale=0, backwards=1):
    """``Fast_CrossEntropyLoss.apply`` on ``[rows, vocabulary]``: losses and the gradient of each backward."""
    leaf = logits.requires_grad_()
    losses = cross_entropy_loss.Fast_CrossEntropyLoss.apply(leaf, labels, softcap, scale)
    gradients = []
    for _ in range(backwards):
        leaf.grad = None
        losses.backward(dlosses, retain_graph=True)
        gradients.append(leaf.grad)
    return {"losses": losses.detach(), "gradients": gradients}


def with_one_half_replaced(half, logits, labels, dlosses, softcap=0, scale=0):
    """``rows`` with this project's ``forward`` or ``backward`` beside upstream's other half."""
    from patcher.replacements.unsloth import cross_entropy_loss as replacement

    with replaced(cross_entropy_loss.Fast_CrossEntropyLoss, replacement, half):
        return rows(logits, labels, dlosses, softcap, scale)
