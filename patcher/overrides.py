"""A subclass or a mode that takes a function of torch's over is given the one that a script finds.

torch's parser gives it the C function that the parser belongs to, of which ``func is torch.sum`` would not hold
(torch 2.13.0 torch/csrc/utils/python_arg_parser.cpp, handle_torch_function). For methods it asks the class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import handle_torch_function

TENSORS = ("input", "x", "a", "x1", "start", "end", "out")  # of these x, a and x1 are NumPy's, which torch takes too
"""The names by which functions take the tensors that torch asks. A number or size it does not ask, even a tensor."""


def hand_over(function: Any, asked: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a mode, or a subclass in ``asked``, makes of a call. As by torch, it is not told of plain tensors."""
    return handle_torch_function(function, [each for each in asked if type(each) is not torch.Tensor], *args, **kwargs)
