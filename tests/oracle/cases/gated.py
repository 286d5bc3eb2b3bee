"""SwiGLU and GEGLU through upstream's entry points; ``kind`` is swiglu, geglu_exact or geglu_approx."""

from __future__ import annotations

from unsloth.kernels import geglu, swiglu

FORWARD = {
    "swiglu": "swiglu_fg_kernel",
    "geglu_exact": "geglu_exact_forward_kernel",
    "geglu_approx": "geglu_approx_forward_kernel",
}
BACKWARD = {
    "swiglu": "swiglu_DWf_DW_dfg_kernel",
    "geglu_exact": "geglu_exact_backward_kernel",
    "geglu_approx": "geglu_approx_backward_kernel",
}


def forward(kind, e, g):
    """``h`` for ``[batch, tokens, columns]``."""
    return getattr(swiglu if kind == "swiglu" else geglu, FORWARD[kind])(e, g)


def backward(kind, DW, e, g):
    """The three given tensors after the call, and whether it returned those."""
    result = getattr(swiglu if kind == "swiglu" else geglu, BACKWARD[kind])(DW, e, g)
    same = all(found is given for found, given in zip(result, (DW, e, g), strict=True))
    return {"h": DW, "df": e, "de": g, "same": same}
