"""Classes of torch's whose instances belong to a device. What they make are instances of torch's own."""

from __future__ import annotations

from typing import Any

import torch

from patcher.replacements.torch.cuda_device import MPS, is_cuda, say_once


class DeviceType(type(torch.Generator)):  # type: ignore[misc]
    """The type of a class that stands in for one of torch's: equal to it, and its instances are torch's."""

    replaced: type

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if is_cuda(args[0] if args else kwargs.get("device")):
            say_once()
            args, kwargs = ((MPS, *args[1:]), kwargs) if args else (args, {**kwargs, "device": MPS})
        if "replaced" in vars(cls):
            return cls.replaced(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.replaced) if "replaced" in vars(cls) else super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.replaced) if "replaced" in vars(cls) else super().__subclasscheck__(subclass)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is vars(cls).get("replaced")

    def __hash__(cls) -> int:
        return hash(vars(cls).get("replaced")) if "replaced" in vars(cls) else super().__hash__()

    def __repr__(cls) -> str:
        return repr(vars(cls)["replaced"]) if "replaced" in vars(cls) else super().__repr__()

    @property  # type: ignore[misc]
    def __class__(cls) -> type:
        return type(vars(cls)["replaced"]) if "replaced" in vars(cls) else type(cls)


def _stands_for(replaced: type) -> type:
    """A class that makes instances of ``replaced``, on mps where CUDA is asked for; a pickle names it in torch."""
    names = {"replaced": replaced, "__module__": "torch", "__doc__": replaced.__doc__}
    stand_in: type = DeviceType(replaced.__name__, (replaced,), names)
    return stand_in


Generator = _stands_for(torch.Generator)
Stream = _stands_for(torch.Stream)
Event = _stands_for(torch.Event)
