"""A subclass or a mode that takes a function of torch's over is given the one that a script finds.

torch's parser gives it the C function that the parser belongs to, of which ``func is torch.sum`` would not hold
(torch 2.13.0 torch/csrc/utils/python_arg_parser.cpp, handle_torch_function). For methods it asks the class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import handle_torch_function, has_torch_function

_NAMES = ("input", "x", "a", "x1", "start", "end", "out")  # the second to fourth are NumPy's, which torch takes too
NOT_TAKEN = object()


def taken_over(holder: Any, name: str, tensors: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a mode or a subclass makes of the call of ``holder.name``; `NOT_TAKEN` where there is none.

    Args:
        tensors: how many of the first arguments torch asks; numbers and sizes it does not ask, though they may be
            tensors, and of keywords ``out`` alone where this is 0.
    """
    given = (*args[:tensors], *map(kwargs.get, _NAMES if tensors else ("out",)))
    return hand_over(getattr(holder, name), given, args, kwargs) if has_torch_function(given) else NOT_TAKEN


def hand_over(function: Any, asked: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a mode, or a subclass in ``asked``, makes of a call; as torch's parser it is not told of plain tensors."""
    return handle_torch_function(function, [each for each in asked if type(each) is not torch.Tensor], *args, **kwargs)
