"""The types of ``torch.cuda``: of tensors on mps, by dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import has_torch_function

from patcher.engine.ledger import original
from patcher.replacements.torch import float64
from patcher.replacements.torch.cuda_device import MPS, say_once


class TensorType(type):
    """The type of a class that makes and recognises tensors on mps of one dtype."""

    dtype: torch.dtype
    layout = torch.strided
    is_cuda = True
    is_sparse = False

    def __call__(cls, *args: Any, **kwargs: Any) -> torch.Tensor:
        """A tensor from a size or from data, as the class of the same name in ``torch`` makes it."""
        say_once()
        made: torch.Tensor = getattr(torch, cls.__name__)(*args, **kwargs)
        return made.to(MPS)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, torch.Tensor) and instance.dtype == cls.dtype and instance.device.type == "mps"

    def __repr__(cls) -> str:
        return f"<class 'torch.cuda.{cls.__name__}'>"


def _type(name: str) -> TensorType:
    dtype = getattr(torch, f"{name}Tensor").dtype
    return TensorType(f"{name}Tensor", (), {"dtype": dtype, "__module__": "torch.cuda"})


BFloat16Tensor = _type("BFloat16")
BoolTensor = _type("Bool")
ByteTensor = _type("Byte")
CharTensor = _type("Char")
DoubleTensor = _type("Double")
FloatTensor = _type("Float")
HalfTensor = _type("Half")
IntTensor = _type("Int")
LongTensor = _type("Long")
ShortTensor = _type("Short")

_BY_NAME = {
    f"torch.{module}.{name}": made
    for module in ("cuda", "mps")
    for name, made in list(globals().items())
    if isinstance(made, TensorType)
}
_TENSOR_TYPE = torch._C.TensorBase.type


def _named(dtype: Any) -> TensorType | None:
    if isinstance(dtype, str):
        return _BY_NAME.get(dtype)
    return dtype if isinstance(dtype, TensorType) else None


def type_(self: torch.Tensor, /, *args: Any, **kwargs: Any) -> Any:
    """On mps where a type of CUDA's, or the one that a tensor on mps has, is asked for."""
    named = _named(args[0] if args else kwargs.get("dtype"))
    if named is None or has_torch_function((self,)):
        try:
            return _TENSOR_TYPE(self, *args, **kwargs)
        except TypeError as refusal:
            return float64.moved(self, args[:1], {"dtype": kwargs["dtype"]} if "dtype" in kwargs else {}, refusal)
    say_once()
    return self.to(MPS, named.dtype)


def set_default_tensor_type(t: Any, /) -> None:
    """As torch; a type of CUDA's makes mps the default device, and the next type of the CPU's takes that back."""
    named = _named(t)
    if named is not None:
        torch.set_default_dtype(float64.narrower(named.dtype) or named.dtype)
        torch.set_default_device("cuda")
    else:
        original("torch:set_default_tensor_type")(t)
        if torch.get_default_device() == MPS:
            torch.set_default_device(None)
