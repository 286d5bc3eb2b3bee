"""GEGLU's activation ``gelu(e)`` in fp32, exact and with tanh, for `gated_linear_unit`.

Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SQRT_HALF = math.sqrt(0.5)
_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_INVERSE_SQRT_2_PI = 1 / math.sqrt(2 * math.pi)
_CUBIC = 0.044715


def gelu(e: Tensor) -> Tensor:
    """``e * P(e)`` with the normal distribution ``P(e) = (1 + erf(e / sqrt(2))) / 2``."""
    return _normal_cdf(e).mul_(e)


def gelu_and_slope(e: Tensor) -> tuple[Tensor, Tensor]:
    """``e * P(e)`` and ``P(e) + e * p(e)`` with the density ``p(e) = exp(-e^2 / 2) / sqrt(2 pi)``."""
    cdf = _normal_cdf(e)
    slope = e.square().mul_(-0.5).exp_().mul_(e).mul_(_INVERSE_SQRT_2_PI).add_(cdf)
    return cdf.mul_(e), slope


def gelu_tanh(e: Tensor) -> Tensor:
    """``e * T`` with ``T = (1 + tanh(u)) / 2 = sigmoid(2 u)`` and ``u = sqrt(2 / pi) * (e + 0.044715 e^3)``."""
    return _twice_u(e).sigmoid_().mul_(e)


def gelu_tanh_and_slope(e: Tensor) -> tuple[Tensor, Tensor]:
    """``e * T`` and ``T * (1 + 2 (1 - T) * e du/de)``, because ``sech^2(u) / 2 = 2 T (1 - T)``."""
    v = _twice_u(e)
    t = torch.sigmoid(v)
    twice_e_du = e.square().mul_(3 * _CUBIC).add_(1.0).mul_(e).mul_(2 * _SQRT_2_OVER_PI)
    slope = v.neg_().sigmoid_().mul_(twice_e_du).add_(1.0).mul_(t)
    return t.mul_(e), slope


def _normal_cdf(e: Tensor) -> Tensor:
    return torch.erf(e * _SQRT_HALF).add_(1.0).mul_(0.5)


def _twice_u(e: Tensor) -> Tensor:
    # For T and 1 - T = sigmoid(-2 u): 1 + tanh(u) loses every digit for u < -8, and 1 - T for u > 8.
    return e.square().mul_(_CUBIC).add_(1.0).mul_(e).mul_(2 * _SQRT_2_OVER_PI)
