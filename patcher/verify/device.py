"""torch and its mps device: present, of a supported version, and right in the basics."""

from __future__ import annotations

from functools import partial

import torch
from packaging.version import Version

from patcher.verify.check import INSTALL, MPS, Check, Failed, Situation
from patcher.verify.compare import assert_close, distance, tolerance

OLDEST, TOO_NEW = Version("2.13"), Version("2.15.dev0")


def version(here: Situation) -> str:
    """A torch that the changes were written for."""
    found = Version(torch.__version__)
    if not OLDEST <= found < TOO_NEW:
        raise Failed(f"torch {found}: supported are 2.13 and 2.14")
    return f"torch {found}"


def available(here: Situation) -> str:
    """The mps device answers."""
    mps = torch.backends.mps
    if not mps.is_available():
        raise Failed("torch was built without mps" if not mps.is_built() else "torch sees no mps device")
    return f"{torch.ones(1, device='mps').device}"


def matmul(here: Situation) -> str:
    """A product in fp32 is the CPU's."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(130, 70, generator=generator), torch.randn(70, 90, generator=generator))
    allowed = tolerance(torch.float32, length=70)
    return distance(
        [assert_close("a @ b", (a.to("mps") @ b.to("mps")).cpu(), a.double() @ b.double(), allowed)], allowed
    )


def float64_refused(here: Situation) -> str:
    """float64 raises TypeError, as on every Mac, instead of computing something else: the patches wait for it."""
    try:
        made = torch.ops.aten.ones.default([1], dtype=torch.float64, device="mps")
    except TypeError as error:
        return f"refused: {str(error).splitlines()[0][:60]}"
    raise Failed(f"a tensor of {made.dtype} was made on mps")


def bf16(here: Situation) -> str:
    """bf16 tensors, and autocast to bf16, with a product right up to roundings."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 64, generator=generator).bfloat16() for _ in range(2))
    with torch.autocast("mps", dtype=torch.bfloat16):
        made = a.to("mps").float() @ b.to("mps").float()
    if made.dtype != torch.bfloat16:
        raise Failed(f"autocast to bf16 gives {made.dtype}")
    allowed = tolerance(torch.bfloat16, length=64)
    return distance([assert_close("a @ b", made.cpu(), a.double() @ b.double(), allowed)], allowed)


def random_numbers(here: Situation) -> str:
    """Seeds repeat, the state can be kept and put back, and numbers look normal."""
    torch.mps.manual_seed(7)
    state = torch.mps.get_rng_state()
    first, second = torch.randn(4096, device="mps").cpu(), torch.randn(4096, device="mps").cpu()
    torch.mps.set_rng_state(state)
    if not torch.equal(first, torch.randn(4096, device="mps").cpu()):
        raise Failed("the same state gives other numbers")
    torch.mps.manual_seed(7)
    if not torch.equal(first, torch.randn(4096, device="mps").cpu()) or torch.equal(first, second):
        raise Failed("the same seed gives other numbers, or all draws are the same")
    # The mean of 4096 standard normal numbers has a deviation of 1/64: 0.1 is beyond 6 of them.
    if abs(first.mean()) > 0.1 or abs(first.std() - 1) > 0.1:
        raise Failed(f"mean {first.mean():.2f} and deviation {first.std():.2f} of normal numbers")
    return "seed, state and distribution"


def memory_queries(here: Situation) -> str:
    """What torch says about memory fits the machine and grows with what is allocated."""
    size = 8 << 20
    before = torch.mps.current_allocated_memory()
    kept = torch.zeros(size, dtype=torch.uint8, device="mps")
    grown = torch.mps.current_allocated_memory() - before
    if grown < kept.numel():
        raise Failed(f"{grown} bytes more after allocating {size}")
    most = torch.mps.recommended_max_memory()
    if not 0 < most <= here.machine.memory_bytes:
        raise Failed(f"recommended maximum {most} bytes of {here.machine.memory_bytes}")
    return f"{most / 2**30:.1f} GiB recommended maximum"


_check = partial(Check, "torch and mps")

CHECKS = (
    _check("version", version, f"{INSTALL}, which brings a supported torch"),
    _check("available", available, "an arm64 torch on macOS 14 or later has it: pip install --force-reinstall torch"),
    _check("matmul", matmul, needs=(MPS,)),
    _check("float64 refused", float64_refused, needs=(MPS,)),
    _check("bf16", bf16, "load models with dtype=torch.float16 or torch.float32, and set bf16=False", needs=(MPS,)),
    _check("random numbers", random_numbers, "train with dropout 0, and update torch", needs=(MPS,)),
    _check("memory", memory_queries, "watch memory in Activity Monitor instead; update torch", needs=(MPS,)),
)
