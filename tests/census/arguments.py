"""Arguments of a launch as plain data, for another process: tensors keep their layout and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tests.census.upstream import KERNELS, name_of


@dataclass(frozen=True)
class Token:
    """What stands for an object that is another one in each process.

    Attributes:
        kind: "tensor", "dtype", "kernel" or "descriptor".
        value: a storage's number, dtype, offset, shape and strides; a name; a descriptor's attributes.
    """

    kind: str
    value: Any


class Packed:
    """Arguments as they were.

    Attributes:
        args, named: with `Token` for what is no plain data.
        storages: the bytes of every storage.
    """

    def __init__(self, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.storages: list[torch.Tensor] = []
        self._places: dict[int, int] = {}
        self.args, self.named = self._packed(args), self._packed(named)
        del self._places

    def made(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of this process, in storages of their own."""
        storages = [storage.clone().untyped_storage() for storage in self.storages]
        return _made(self.args, storages), _made(self.named, storages)

    def _packed(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._packed_tensor(value.detach())
        if isinstance(value, (tuple, list)):
            parts = [self._packed(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        if isinstance(value, dict):
            return {name: self._packed(part) for name, part in value.items()}
        if hasattr(value, "block_shape"):
            parts = (value.base, tuple(value.shape), tuple(value.strides), tuple(value.block_shape))
            return Token("descriptor", self._packed(parts))
        if hasattr(value, "arg_names"):
            return Token("kernel", name_of(value))
        if hasattr(value, "primitive_bitwidth"):
            return Token("dtype", str(value))
        if type(value).__name__ == "constexpr":
            return self._packed(value.value)
        if value is None or isinstance(value, (bool, int, float, str, torch.dtype)):
            return value
        raise TypeError(f"a launch with {value!r}")

    def _packed_tensor(self, tensor: torch.Tensor) -> Token:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._places:
            self._places[storage.data_ptr()] = len(self.storages)
            self.storages.append(torch.empty(0, dtype=torch.uint8).set_(storage.clone()))  # type: ignore[call-overload]
        layout = (tensor.dtype, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        return Token("tensor", (self._places[storage.data_ptr()], *layout))


def _made(value: Any, storages: list[Any]) -> Any:
    if isinstance(value, (tuple, list)):
        parts = [_made(part, storages) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {name: _made(part, storages) for name, part in value.items()}
    return _made_of(value, storages) if isinstance(value, Token) else value


def _made_of(token: Token, storages: list[Any]) -> Any:
    if token.kind == "tensor":
        place, dtype, offset, shape, stride = token.value
        return torch.empty(0, dtype=dtype).set_(storages[place], offset, shape, stride)
    if token.kind == "kernel":
        return KERNELS[token.value]
    if token.kind == "dtype":
        import triton.language as tl

        names = ("int1", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
        names += ("float16", "bfloat16", "float32", "float64", "float8e4nv", "float8e5")
        return next(found for found in (getattr(tl, name) for name in names) if str(found) == token.value)
    from triton.tools.tensor_descriptor import TensorDescriptor

    base, *others = token.value
    return TensorDescriptor(_made(base, storages), *map(list, others))


def tensors(value: Any) -> list[torch.Tensor]:
    """Copies of those in arguments, in order."""
    if isinstance(value, torch.Tensor):
        return [value.detach().clone()]
    if isinstance(value, dict):
        value = tuple(value.values())
    if hasattr(value, "block_shape"):
        value = (value.base,)
    return [found for part in value for found in tensors(part)] if isinstance(value, (tuple, list)) else []
