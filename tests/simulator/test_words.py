"""Where the CPU's kernel lacks a dtype, a Mac's words are told, or that they are not known: never the CPU's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from patcher.simulator import Device
from patcher.simulator.wheels import records
from tests.fidelity.database import Database
from tests.simulator.conftest import TORCH

C32, C64 = torch.complex32, torch.complex64


def ones(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(shape, dtype=dtype, device="mps")


NO_KERNEL: dict[str, Callable[[], Tensor]] = {
    "hardswish_dense_int_int": lambda: F.hardswish(ones(3, dtype=torch.int32)),
    "hardswish_strided_int_int": lambda: F.hardswish(ones(6, dtype=torch.int32)[::2]),
    "hypot_dense_uchar_uchar": lambda: torch.hypot(ones(3, dtype=torch.uint8), ones(3, dtype=torch.uint8)),
    "i0e_dense_float2_float2": lambda: torch.special.i0e(ones(3, dtype=C64)),
    "bessel_j0_forward_dense_float2_float2": lambda: torch.special.bessel_j0(ones(3, dtype=C64)),
    "round_decimals_dense_long_long": lambda: ones(3, dtype=torch.int64).round(decimals=2),
    "div_floor_dense_float2_float2": lambda: torch.div(ones(3, dtype=C64), ones(3, dtype=C64), rounding_mode="floor"),
    "abs_dense_ushort_ushort": lambda: ones(3, dtype=torch.uint16).abs(),
}


@pytest.fixture
def counted(device: Device) -> Iterator[Device]:
    device.rules.reset()
    yield device
    device.rules.reset()


@pytest.mark.parametrize("kernel", NO_KERNEL)
def test_a_kernel_that_the_binary_lacks_is_missed_by_name(counted: Device, kernel: str) -> None:
    """As torch's MetalShaderLibrary misses it; the name of the family is that of the wheel."""
    with pytest.raises(RuntimeError, match=f"^Failed to create function state object for: {kernel}$"):
        NO_KERNEL[kernel]()
    assert counted.rules.refused == {"kernel-dtype": 1}
    family, *types = kernel.replace("_dense_", " ").replace("_strided_", " ").replace("_", " ").rsplit(" ", 2)
    assert types[0] not in records.record(TORCH).types()[family.replace(" ", "_")]


def test_what_a_mac_can_and_the_cpu_cannot_is_said(counted: Device) -> None:
    """It is no refusal of a Mac's."""
    with pytest.raises(NotImplementedError, match=r"sin is not implemented for 'ComplexHalf'.*; a Mac's have it$"):
        ones(3, dtype=C32).sin()
    assert counted.rules.refused == {}


UNKNOWN: dict[str, tuple[type[Exception], Callable[[], object]]] = {
    "elu is not implemented for 'Int' .* not known$": (
        NotImplementedError,
        lambda: F.elu(ones(3, dtype=torch.int32)),
    ),
    "topk on the simulated mps device: .*; what a Mac says is not known": (
        RuntimeError,
        lambda: ones(3, dtype=torch.bool).topk(1),
    ),
    "but got MPSBoolType instead": (
        RuntimeError,
        lambda: F.embedding_bag(ones(2, dtype=torch.int64), ones(2, 2, dtype=torch.bool), ones(1, dtype=torch.int64)),
    ),
    "\"check_uniform_bounds\" not implemented for 'Int'": (
        NotImplementedError,
        lambda: ones(3, dtype=torch.int32).uniform_(),
    ),
}


@pytest.mark.parametrize("text", UNKNOWN)
def test_words_that_are_not_known_are_not_made_up(text: str) -> None:
    """Those that every device shares are kept."""
    error, call = UNKNOWN[text]
    with pytest.raises(error, match=text):
        call()


def test_an_operator_that_falls_back_speaks_of_the_cpu(counted: Device) -> None:
    """There it runs, on a Mac too."""
    half = ones(2, 2, dtype=torch.float16)
    counted.rules.cpu_fallback = True
    try:
        with pytest.raises(NotImplementedError, match="ormqr_cpu"):
            torch.ormqr(half, half[0], half)
    finally:
        counted.rules.cpu_fallback = False


def message_of(op: object, sample: object, dtype: torch.dtype) -> str:
    def onto_mps(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return value.detach().to(dtype if value.is_floating_point() else value.dtype).to("mps")

    try:
        args = pytree.tree_map(onto_mps, (sample.input, sample.args, sample.kwargs))  # type: ignore[attr-defined]
        op(args[0], *args[1], **args[2])  # type: ignore[operator]
    except Exception as error:  # noqa: BLE001 - whatever is said
        return str(error)
    return ""


ON_THE_CPU_INDEED = (
    "not currently implemented for the MPS device",
    "manually transfer tensor to cpu",
    "expected tensor_indices_or_sections to be on cpu",
)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64])
def test_no_operator_speaks_of_the_cpu(dtype: torch.dtype) -> None:
    """Every eighth of torch's database of operators, with float32 samples turned into a dtype that many refuse."""
    told = {}
    for name, op in itertools.islice(Database((15, 5)).ops.items(), 0, None, 8):
        if torch.float32 in op.supported_dtypes("cpu"):
            for sample in itertools.islice(op.sample_inputs("cpu", torch.float32), 1):
                told[name] = message_of(op, sample, dtype)
    assert len([text for text in told.values() if text]) > 10
    assert not {
        name: text
        for name, text in told.items()
        if "cpu" in text.lower() and not any(known in text for known in ON_THE_CPU_INDEED)
    }
