"""Unsloth's own kernels as Metal shaders and with torch: ``python -m tests.tiles.upstream OUT``.

The calls are those of ``tests/oracle/cases``, at sizes that fill no block. OUT becomes a file of ``torch.save``: for a
call what it gave with torch, what it gave as Metal, which kernels ran so, and why others did not.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch

EPS = 1e-5
Call = Callable[[torch.dtype], Any]


def _case(file: str, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(importlib.import_module(f"tests.oracle.cases.{file}"), name)
    return found


def _normal(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape).to(dtype)


def rms_layernorm(dtype: torch.dtype, gemma: bool = False) -> Any:
    """Rows of 77, and the gradient of the weight."""
    X, dY = _normal(2, 5, 77, dtype=dtype), _normal(2, 5, 77, dtype=dtype)
    return _case("rms_layernorm", "forward_backward")(X, _normal(77, dtype=dtype).requires_grad_(), dY, EPS, gemma)


def gemma_rms_layernorm(dtype: torch.dtype) -> Any:
    """The variant that adds 1 to the weight."""
    return rms_layernorm(dtype, gemma=True)


def layernorm(dtype: torch.dtype) -> Any:
    """Rows of 301, with bias."""
    X, dY = _normal(3, 7, 301, dtype=dtype), _normal(3, 7, 301, dtype=dtype)
    W, b = _normal(301, dtype=dtype).requires_grad_(), _normal(301, dtype=dtype).requires_grad_()
    return _case("layernorm", "forward_backward")(X, W, b, dY, EPS)


def rope_embedding(dtype: torch.dtype) -> Any:
    """Grouped heads of 48."""
    Q, K = _normal(2, 6, 5, 48, dtype=dtype), _normal(2, 3, 5, 48, dtype=dtype)
    dQ, dK = _normal(2, 6, 5, 48, dtype=dtype), _normal(2, 3, 5, 48, dtype=dtype)
    angles = torch.randn(5, 48)
    return _case("rope_embedding", "fast")(Q, K, angles.cos().to(dtype), angles.sin().to(dtype), dQ, dK)


def _gated(kind: str) -> Call:
    def gated(dtype: torch.dtype) -> Any:
        e, g = _normal(2, 3, 1100, dtype=dtype), _normal(2, 3, 1100, dtype=dtype)
        flat = [_normal(6, 1100, dtype=dtype) for _ in range(3)]
        return {"h": _case("gated", "forward")(kind, e, g), "back": _case("gated", "backward")(kind, *flat)}

    return gated


def cross_entropy_loss(dtype: torch.dtype, columns: int = 1001, **options: float) -> Any:
    """One ignored label."""
    labels = torch.randint(0, columns, (2, 4))
    labels[0, 1] = -100
    return _case("cross_entropy_loss", "loss")(_normal(2, 4, columns, dtype=dtype), labels, **options)


def capped_cross_entropy_loss(dtype: torch.dtype) -> Any:
    """Logits under a soft cap."""
    return cross_entropy_loss(dtype, logit_softcapping=30.0)


def chunked_cross_entropy_loss(dtype: torch.dtype) -> Any:
    """A vocabulary that goes into no one block."""
    return cross_entropy_loss(dtype, columns=65537)


CALLS: dict[str, Call] = {
    "rms_layernorm": rms_layernorm,
    "gemma_rms_layernorm": gemma_rms_layernorm,
    "layernorm": layernorm,
    "rope_embedding": rope_embedding,
    "swiglu": _gated("swiglu"),
    "geglu_exact": _gated("geglu_exact"),
    "geglu_approx": _gated("geglu_approx"),
    "cross_entropy_loss": cross_entropy_loss,
    "capped_cross_entropy_loss": capped_cross_entropy_loss,
    "chunked_cross_entropy_loss": chunked_cross_entropy_loss,
}


def main(out: str) -> None:
    """Runs every call in fp32 and bf16."""
    from tests.oracle.worker import load_packages_without_their_init
    from tests.tiles import carried
    from tests.tiles.worker import prepare

    prepare("metal-admitted")
    load_packages_without_their_init()
    torch.cuda.current_device = lambda: 0
    as_metal, found = carried.launch.run, {}
    for name, call in CALLS.items():
        for dtype in (torch.float32, torch.bfloat16):
            results = []
            for run in (carried.with_torch, as_metal):
                carried.launch.run = run  # type: ignore[assignment]
                torch.manual_seed(0)
                results.append(call(dtype))
            found[f"{name}[{str(dtype).removeprefix('torch.')}]"] = (*results, carried.ran[:], carried.refused[:])
            carried.ran.clear()
            carried.refused.clear()
    torch.save(found, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
