"""Quantized layers and parameters, for isinstance."""

from bitsandbytes.nn import modules as modules
from bitsandbytes.nn.modules import Int8Params, Linear4bit, Linear8bitLt, Params4bit

__all__ = ["Int8Params", "Linear4bit", "Linear8bitLt", "Params4bit"]
