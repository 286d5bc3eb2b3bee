"""Which optimizer a name of transformers' ``OptimizerNames`` means on mps: kept, replaced by the nearest, or refused.

Reviewed against transformers 5.17.0 (`training_args.OptimizerNames`, `trainer_optimizer`), bitsandbytes 0.50.2 and
torch 2.13.0. A name that is in none of the three tables is left to transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FUSED = "adamw_torch_fused"

_NO_8BIT = "bitsandbytes 0.50.2 has no 8-bit optimizer kernel for mps (optimizer_update_8bit_blockwise)"
_NO_PAGES = "paged optimizer state is CUDA managed memory; memory is unified on a Mac"
_SAME_ADAMW = f"{FUSED} is the same AdamW with 32-bit state: 8 bytes for each trained parameter instead of 2"


@dataclass(frozen=True)
class Nearest:
    """The optimizer that stands in for another on mps.

    Attributes:
        name: its name in ``OptimizerNames``.
        reason: what is missing on mps, and what differs between the two.
    """

    name: str
    reason: str


REPLACED: Mapping[str, Nearest] = {
    "adamw_8bit": Nearest(FUSED, f"{_NO_8BIT}; {_SAME_ADAMW}"),
    "adamw_bnb_8bit": Nearest(FUSED, f"{_NO_8BIT}; {_SAME_ADAMW}"),
    "paged_adamw_8bit": Nearest(FUSED, f"{_NO_8BIT}, and {_NO_PAGES}; {_SAME_ADAMW}"),
    "paged_adamw_32bit": Nearest(FUSED, f"{_NO_PAGES}; {FUSED} is the same AdamW with the same 32-bit state"),
    "lion_8bit": Nearest("lion_32bit", f"{_NO_8BIT}; lion_32bit is the same Lion with 32-bit state"),
    "paged_lion_8bit": Nearest("lion_32bit", f"{_NO_8BIT}, and {_NO_PAGES}; lion_32bit is the same Lion"),
    "paged_lion_32bit": Nearest("lion_32bit", f"{_NO_PAGES}; lion_32bit is the same Lion with the same state"),
    "ademamix_8bit": Nearest("ademamix", f"{_NO_8BIT}; ademamix is the same AdEMAMix with 32-bit state"),
    "paged_ademamix_8bit": Nearest("ademamix", f"{_NO_8BIT}, and {_NO_PAGES}; ademamix is the same AdEMAMix"),
    "paged_ademamix_32bit": Nearest("ademamix", f"{_NO_PAGES}; ademamix is the same AdEMAMix with the same state"),
    "rmsprop_bnb": Nearest("rmsprop", "torch's RMSprop has the same update rule and needs no bitsandbytes"),
    "rmsprop_bnb_32bit": Nearest("rmsprop", "torch's RMSprop has the same update rule and needs no bitsandbytes"),
    "rmsprop_bnb_8bit": Nearest("rmsprop", f"{_NO_8BIT}; torch's RMSprop has the same update rule, 32-bit state"),
    "galore_adamw_8bit": Nearest("galore_adamw", f"{_NO_8BIT}; galore_adamw is the same GaLore with 32-bit state"),
    "galore_adamw_8bit_layerwise": Nearest(
        "galore_adamw_layerwise", f"{_NO_8BIT}; galore_adamw_layerwise is the same GaLore with 32-bit state"
    ),
    "adamw_torch_4bit": Nearest(FUSED, f"torchao's 4-bit state is not verified on mps; {FUSED} keeps 32-bit state"),
    "adamw_torch_8bit": Nearest(FUSED, f"torchao's 8-bit state is not verified on mps; {FUSED} keeps 32-bit state"),
    "adamw_torch_xla": Nearest(FUSED, f"torch_xla drives TPUs; {FUSED} is the same AdamW for mps"),
    "adamw_torch_npu_fused": Nearest(FUSED, f"torch_npu drives Ascend devices; {FUSED} is the same AdamW for mps"),
    "adamw_apex_fused": Nearest(FUSED, f"apex is written in CUDA; {FUSED} is the same AdamW for mps"),
    "adamw_anyprecision": Nearest(
        FUSED, f"torchdistx has no build for macOS; {FUSED} is AdamW without its reduced-precision state"
    ),
}
"""Replaced by the same algorithm with other storage of its state: the learning rate keeps its meaning."""

REFUSED: Mapping[str, Nearest] = {
    "adalomo": Nearest("adafactor", "lomo_optim creates AdaLomo's state with .cuda()"),
}
"""Refused, with the closest optimizer that works: it is another algorithm, so the choice stays with the user."""

KEPT: Mapping[str, str] = {
    "adamw_torch": "torch",
    "adamw_torch_fused": "torch, with an mps kernel",
    "adafactor": "transformers, plain torch",
    "sgd": "torch",
    "adagrad": "torch; mps has no fused Adagrad, and none is asked for",
    "rmsprop": "torch",
    "ademamix": "bitsandbytes, 32-bit state, plain torch on mps",
    "lion_32bit": "bitsandbytes, 32-bit state, plain torch on mps",
    "galore_adamw": "galore_torch, plain torch; its SVD runs on the CPU",
    "galore_adamw_layerwise": "galore_torch, plain torch; its SVD runs on the CPU",
    "galore_adafactor": "galore_torch, plain torch; its SVD runs on the CPU",
    "galore_adafactor_layerwise": "galore_torch, plain torch; its SVD runs on the CPU",
    "lomo": "lomo_optim, plain torch",
    "grokadamw": "grokadamw, plain torch",
    "schedule_free_radam": "schedulefree, plain torch",
    "schedule_free_adamw": "schedulefree, plain torch",
    "schedule_free_sgd": "schedulefree, plain torch",
    "apollo_adamw": "apollo_torch, plain torch",
    "apollo_adamw_layerwise": "apollo_torch, plain torch",
    "stable_adamw": "torch-optimi, which takes its Triton path on CUDA and XPU only",
}
"""Left alone: it runs on mps. The value says whose code it is; the package must be installed, as on CUDA."""
