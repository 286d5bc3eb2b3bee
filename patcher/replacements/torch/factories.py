"""What makes tensors without ``empty`` and ``empty_strided``, or asks for CUDA's device guard before it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import has_torch_function

from patcher.engine.ledger import original
from patcher.errors import NotOnMac, compose
from patcher.overrides import hand_over
from patcher.replacements.torch import float64
from patcher.replacements.torch.cuda_device import MPS, is_cuda, made_on_mps, say_once


def _compressed(name: str) -> Callable[..., Any]:
    replaced = getattr(torch, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        if has_torch_function((None,)):
            return hand_over(getattr(torch, name), (), args, kwargs)
        if is_cuda(kwargs.get("device")):
            raise _not_on_mac(f"torch.{name}", "compressed sparse tensors", "torch.sparse_coo_tensor(...)")
        return replaced(*args, **kwargs)

    return function


def _not_on_mac(function: str, what: str, instead: str) -> NotOnMac:
    return NotOnMac(
        compose(
            f"mps has no {what}",
            target=f'{function}(device="cuda")',
            expected="a layout that torch has on mps",
            left="no tensor was made",
            run=f"write {instead}, or keep the tensor on the CPU",
        )
    )


asarray = made_on_mps("asarray")
full = made_on_mps("full")
arange = made_on_mps("arange")
linspace = made_on_mps("linspace", tensors=2)
logspace = made_on_mps("logspace", tensors=2)
scalar_tensor = made_on_mps("scalar_tensor")
sparse_coo_tensor = made_on_mps("sparse_coo_tensor")
sparse_compressed_tensor = _compressed("sparse_compressed_tensor")
sparse_csr_tensor = _compressed("sparse_csr_tensor")
sparse_csc_tensor = _compressed("sparse_csc_tensor")
sparse_bsr_tensor = _compressed("sparse_bsr_tensor")
sparse_bsc_tensor = _compressed("sparse_bsc_tensor")

_RANGE, _KAISER_WINDOW = torch.range, torch.kaiser_window


def range(*args: Any, **kwargs: Any) -> Any:
    """As torch, with mps for CUDA; torch asks no mode about it, nor a subclass."""
    if is_cuda(kwargs.get("device")):
        say_once()
        kwargs = {**kwargs, "device": MPS}
    try:
        return _RANGE(*args, **kwargs)
    except TypeError as refusal:
        return float64.made(_RANGE, args, kwargs, refusal)


def kaiser_window(*args: Any, **kwargs: Any) -> Any:
    """Computed on the CPU, and moved."""
    if has_torch_function((None,)):
        return hand_over(torch.kaiser_window, (), args, kwargs)
    if is_cuda(device := kwargs.get("device")):
        say_once()
    elif device is None or torch.device(device).type != "mps":
        return _KAISER_WINDOW(*args, **kwargs)
    return _KAISER_WINDOW(*args, **{**kwargs, "device": "cpu"}).to(MPS)


_NEW_TENSOR, _PIN_MEMORY = torch._C.TensorBase.new_tensor, torch._C.TensorBase.pin_memory


def new_tensor(self: torch.Tensor, /, *args: Any, **kwargs: Any) -> Any:
    """As torch, with mps for CUDA."""
    if kwargs and is_cuda(kwargs.get("device")) and not has_torch_function((self,)):
        say_once()
        kwargs = {**kwargs, "device": MPS}
    try:
        return _NEW_TENSOR(self, *args, **kwargs)
    except TypeError as refusal:
        return float64.made(_NEW_TENSOR, (self, *args), kwargs, refusal)


def pin_memory(self: torch.Tensor, /, *args: Any, **kwargs: Any) -> Any:
    """For the device that there is."""
    device = args[0] if args else kwargs.get("device")
    if is_cuda(device) and not has_torch_function((self,)):
        return _PIN_MEMORY(self)
    return _PIN_MEMORY(self, *args, **kwargs)


def nested_tensor(
    tensor_list: Any,
    *,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Any:
    """As torch's, with mps for CUDA; NotOnMac for the strided layout, which mps lacks."""
    return original("torch.nested:nested_tensor")(
        tensor_list,
        dtype=dtype,
        layout=layout,
        device=_device_of_nested("nested_tensor", tensor_list, device, layout),
        requires_grad=requires_grad,
        pin_memory=pin_memory,
    )


def as_nested_tensor(ts: Any, dtype: Any = None, device: Any = None, layout: Any = None) -> Any:
    """As torch's, with mps for CUDA; NotOnMac for the strided layout, which mps lacks."""
    device = _device_of_nested("as_nested_tensor", ts, device, layout)
    return original("torch.nested:as_nested_tensor")(ts, dtype, device, layout)


def _device_of_nested(name: str, tensors: Any, device: Any, layout: Any) -> Any:
    if is_cuda(device):
        say_once()
        device = MPS
    each = [tensors] if isinstance(tensors, torch.Tensor) else tensors
    there = MPS if device is None and any(isinstance(x, torch.Tensor) and x.is_mps for x in each) else device
    if layout is not torch.jagged and there is not None and torch.device(there).type == "mps":
        raise _not_on_mac(f"torch.nested.{name}", "nested tensors of the strided layout", "layout=torch.jagged")
    return device
