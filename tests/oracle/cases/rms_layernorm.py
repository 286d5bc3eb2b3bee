"""RMSNorm through upstream's entry points."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from unsloth.kernels import fused_add_rms_layernorm, rms_layernorm


def forward_backward(X, W, dY, eps, gemma=False, reuse_grad=False, from_y=False):
    """Output, gradients of X and W, and dY afterwards; ``reuse_grad`` overwrites it, ``from_y`` saves Y, not X."""
    rms_layernorm._SAVE_OUTPUT = from_y
    X = X.detach().requires_grad_()
    W = W.detach().requires_grad_(W.requires_grad)
    layer = SimpleNamespace(weight=W, variance_epsilon=eps)
    Y = rms_layernorm.fast_rms_layernorm(layer, X, gemma=gemma, save_output=from_y, reuse_grad=reuse_grad)
    assert hasattr(Y, "_unsloth_rmsnorm_saved") == from_y
    Y.backward(dY)
    return {"Y": Y.detach(), "dX": X.grad, "dW": W.grad, "dY": dY}


def llama_module(X, weight, eps):
    """Output of transformers' LlamaRMSNorm after ``patch_rms_layernorm``; the class's name before, then, and after."""
    import transformers.models.llama.modeling_llama as llama

    names = [llama.LlamaRMSNorm.__name__]
    rms_layernorm.patch_rms_layernorm()
    names.append(llama.LlamaRMSNorm.__name__)
    module = llama.LlamaRMSNorm(weight.numel(), eps=eps).to(weight)
    module.weight.data.copy_(weight)
    Y = module(X)
    rms_layernorm.unpatch_rms_layernorm()
    names.append(llama.LlamaRMSNorm.__name__)
    return {"Y": Y.detach(), "names": names}


def add_inference(X, residual, weight, eps, add=True):
    """X and residual, which are both overwritten, and whether the returned tensor is X."""
    with torch.no_grad():
        result = fused_add_rms_layernorm.fast_add_rms_layernorm_inference(X, residual, weight, eps, add=add)
    return {"X": X, "residual": residual, "same": result is X}


def add_inference_ok(calls):
    """The answer of ``fast_add_rms_layernorm_inference_ok`` for each list of arguments."""
    return [fused_add_rms_layernorm.fast_add_rms_layernorm_inference_ok(*arguments) for arguments in calls]


def saved_bytes(X, W, eps, checkpoint=False):
    """Bytes that two norms in a row keep for the backward, and the gradient of X with or without checkpointing."""
    from torch.utils.checkpoint import checkpoint as recompute

    layer = SimpleNamespace(weight=W, variance_epsilon=eps)
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    def block(X):
        return rms_layernorm.fast_rms_layernorm(layer, rms_layernorm.fast_rms_layernorm(layer, X) * 1)

    leaf = X.detach().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        Y = recompute(block, leaf, use_reentrant=False) if checkpoint else block(leaf)
    Y.float().square().sum().backward()
    return {"bytes": sum(kept.values()), "dX": leaf.grad}
