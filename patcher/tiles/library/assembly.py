"""Inline assembly, which is NVIDIA's: the single instructions that are operations of a program."""

from __future__ import annotations

import re
from typing import Any

from patcher.tiles.builder import Builder, Operand
from patcher.tiles.library.elementwise import floating, scalar_type
from patcher.tiles.library.registry import function

INSTRUCTIONS = {
    "div.rn.f32": "div",
    "rcp.rn.f32": "div",
    "sqrt.rn.f32": "sqrt",
    "add.rn.f32": "add",
    "mul.rn.f32": "mul",
}
"""PTX instructions that round to nearest even and keep subnormals, and their functions; ``rcp`` divides 1.0."""


@function()
def inline_asm_elementwise(
    b: Builder, asm: str, constraints: str, args: tuple[Operand, ...], dtype: Any, is_pure: bool, pack: int
) -> Any:
    """One instruction of `INSTRUCTIONS` on fp32 operands in order. Raises TypeError for any other assembly."""
    operands = ", ".join(f"${number}" for number in range(len(args) + 1))
    found = re.fullmatch(r"\s*([\w.]+)\s+" + re.escape(operands) + r"\s*;?\s*", asm)
    if not found or found[1] not in INSTRUCTIONS or scalar_type(dtype).name != "fp32":  # type: ignore[union-attr]
        raise TypeError(
            f"inline_asm_elementwise: of NVIDIA's assembly only {', '.join(INSTRUCTIONS)} alone, in fp32, can run here"
        )
    args = (1.0, *args) if found[1].startswith("rcp") else args
    return floating(b, INSTRUCTIONS[found[1]], *args, dtypes=("fp32",))
