"""Dtypes, mixtures of dtypes and sizes that a Mac refuses. Each rule of the data file has a call that it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from patcher.simulator import Device
from patcher.simulator.rules import tables
from patcher.simulator.wheels import records
from tests.simulator.conftest import TORCH

U8, I64, C64 = torch.uint8, torch.int64, torch.complex64
TABLE = tables.for_torch(TORCH)


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype, device="mps")


def identity(dtype: torch.dtype) -> Tensor:
    return torch.eye(2, dtype=dtype, device="mps")


def large(dtype: torch.dtype) -> Tensor:
    """2^31 elements that take no memory."""
    return torch.zeros((), dtype=dtype, device="mps").expand(1 << 16, 1 << 15)


NO_COMPLEX_LU = r"linalg.lu_factor\(\): MPS doesn't support complex types."


REFUSED: dict[str, tuple[str, type[Exception], str, Callable[[], object]]] = {
    "conv1d of integers": (
        "convolution-dtype",
        RuntimeError,
        "Convolution is supported only for Floating types",
        lambda: F.conv1d(ones(1, 1, 4, dtype=I64), ones(1, 1, 2, dtype=I64)),
    ),
    "transposed conv3d in half precision": (
        "transposed-convolution-3d",
        RuntimeError,
        "ConvTranspose 3D with BF16 or FP16 types is not supported on MPS",
        lambda: F.conv_transpose3d(ones(1, 1, 2, 2, 2).half(), ones(1, 1, 1, 1, 1).half()),
    ),
    "masked_scatter with a mask of numbers": (
        "masked-scatter-mask",
        RuntimeError,
        "masked_scatter: expected BoolTensor or ByteTensor for mask",
        lambda: ones(3).masked_scatter_(ones(3), ones(3)),
    ),
    "linear of integers": (
        "linear-input-dtype",
        RuntimeError,
        "MPS device does not support linear for non-float inputs",
        lambda: F.linear(ones(1, 2, dtype=I64), ones(1, 2, dtype=I64)),
    ),
    "linear with integer weights": (
        "linear-weight-dtype",
        RuntimeError,
        "MPS device does not support linear for non-float weights",
        lambda: F.linear(ones(1, 2), ones(1, 2, dtype=torch.int8)),
    ),
    "max_pool2d of booleans": (
        "max-pool2d-dtype",
        RuntimeError,
        "not supported for Bool",
        lambda: F.max_pool2d(ones(1, 1, 4, 4, dtype=torch.bool), 2),
    ),
    "bicubic upsampling of bytes": (
        "upsampling-dtype",
        RuntimeError,
        "not supported for Byte",
        lambda: F.interpolate(ones(1, 1, 4, 4, dtype=torch.uint8), scale_factor=2, mode="bicubic"),
    ),
    "bilinear upsampling of bytes, smoothed": (
        "upsampling-bilinear-antialiased",
        RuntimeError,
        "_upsample_bilineard2d_aa_out_mps only supports floating-point dtypes",
        lambda: F.interpolate(ones(1, 1, 4, 4, dtype=U8), scale_factor=0.5, mode="bilinear", antialias=True),
    ),
    "bicubic upsampling of bytes, smoothed": (
        "upsampling-bicubic-antialiased",
        RuntimeError,
        "_upsample_bicubic2d_aa_out_mps only supports floating-point dtypes",
        lambda: F.interpolate(ones(1, 1, 4, 4, dtype=U8), scale_factor=0.5, mode="bicubic", antialias=True),
    ),
    "mean squared error from integers": (
        "mse-loss-dtype",
        RuntimeError,
        "mse_loss_out_mps: only defined for floating types",
        lambda: F.mse_loss(ones(3), ones(3, dtype=I64)),
    ),
    "Huber's loss of integers": (
        "squared-loss-integers",
        NotImplementedError,
        "MPS doesn't know how to do square_i64",
        lambda: F.huber_loss(ones(3, dtype=I64), ones(3, dtype=I64)),
    ),
    "complex Huber's loss": (
        "huber-loss-complex",
        NotImplementedError,
        "huber_loss for complex is not supported for MPS",
        lambda: F.huber_loss(ones(3, dtype=C64), ones(3, dtype=C64)),
    ),
    "complex grid_sample": (
        "grid-sampler-complex",
        NotImplementedError,
        "grid_sampler_2d is not supported for complex on MPS",
        lambda: F.grid_sample(ones(1, 1, 2, 2, dtype=C64), ones(1, 2, 2, 2, dtype=C64), align_corners=False),
    ),
    "fractions of integers": (
        "frac-dtype",
        RuntimeError,
        "frac_out_mps is only implemented for floating types",
        lambda: ones(3, dtype=I64).frac(),
    ),
    "complex polynomials": (
        "polynomials-dtype",
        TypeError,
        "^zeta_mps not implemented for non-floating types",
        lambda: torch.special.zeta(ones(3, dtype=C64), ones(3, dtype=C64)),
    ),
    "the next integer": (
        "nextafter-dtype",
        TypeError,
        "nextafter_mps not implemented for non-floating types",
        lambda: torch.nextafter(ones(3, dtype=I64), ones(3, dtype=I64)),
    ),
    "random booleans": (
        "random-dtype",
        RuntimeError,
        "Failed to create function state object for: geometric_bool",
        lambda: ones(3, dtype=torch.bool).geometric_(0.5),
    ),
    "log-normal numbers as integers": (
        "log-normal-integers",
        RuntimeError,
        "Failed to create function state object for: log_normal_uchar",
        lambda: ones(3, dtype=U8).log_normal_(),
    ),
    "inverse from Cholesky in half precision": (
        "cholesky-inverse-dtype",
        RuntimeError,
        "cholesky_inverse: MPS only supports float type!",
        lambda: torch.cholesky_inverse(identity(torch.float16)),
    ),
    "addr of integers": (
        "addr-dtype",
        RuntimeError,
        "MPS device does not support addr for non-float input",
        lambda: torch.addr(ones(2, 2, dtype=I64), ones(2, dtype=I64), ones(2, dtype=I64)),
    ),
    "index_reduce of integers": (
        "index-reduce-integers",
        RuntimeError,
        "index_reduce for MPS does not support torch.long dtype",
        lambda: ones(3, dtype=I64).index_reduce_(0, ones(1, dtype=I64), ones(1, dtype=I64), "amax"),
    ),
    "complex index_reduce": (
        "index-reduce-complex",
        RuntimeError,
        "index_reduce for MPS does not support torch.cfloat dtype",
        lambda: ones(3, dtype=C64).index_reduce(0, ones(1, dtype=I64), ones(1, dtype=C64), "mean"),
    ),
    "lu without pivots": (
        "lu-without-pivots",
        RuntimeError,
        "MPS doesn't allow pivot == False",
        lambda: torch.linalg.lu_factor(identity(torch.float32), pivot=False),
    ),
    "factors of lu without pivots": (
        "lu-without-pivots",
        RuntimeError,
        "MPS doesn't allow pivot == False",
        lambda: torch.linalg.lu(identity(torch.float32), pivot=False)[1],
    ),
    "complex inverse of a Cholesky factor": (
        "cholesky-inverse-dtype",
        RuntimeError,
        "cholesky_inverse: MPS only supports float type!",
        lambda: torch.cholesky_inverse(identity(C64)),
    ),
    "complex inverse": (
        "inverse-complex",
        RuntimeError,
        "linalg_inv: not supported for complex types yet!",
        lambda: torch.linalg.inv(identity(C64)),
    ),
    "normal numbers as integers": (
        "normal-dtype",
        TypeError,
        "normal_kernel_mps not implemented for 'Long'",
        lambda: torch.randn(3, dtype=I64, device="mps"),
    ),
    "normal numbers around integers": (
        "normal-dtype",
        TypeError,
        "normal_kernel_mps not implemented for 'Int'",
        lambda: torch.normal(ones(3, dtype=torch.int32), 1.0),
    ),
    "arithmetic in float8": (
        "float8",
        TypeError,
        "Trying to convert Float8_e4m3fn to the MPS backend but it does not have support for that dtype.",
        lambda: torch.cat([ones(2).cpu().to(torch.float8_e4m3fn).to("mps")] * 2),
    ),
    "to float8": ("float8", TypeError, "Trying to convert Float8_e5m2", lambda: ones(2).to(torch.float8_e5m2)),
    "item of float8": (
        "float8",
        NotImplementedError,
        "_local_scalar_dense_mps",
        lambda: torch.zeros(1, dtype=torch.float8_e4m3fn, device="mps").item(),
    ),
    "pooling to a size that does not divide": (
        "adaptive-average-pooling",
        NotImplementedError,
        "input sizes must be divisible by output sizes",
        lambda: F.adaptive_avg_pool2d(ones(1, 1, 5, 4), (2, 2)),
    ),
    "17 dimensions": (
        "dimensions",
        RuntimeError,
        "MPS supports tensors with dimensions <= 16, but got 17.",
        lambda: torch.empty((1,) * 17, device="mps"),
    ),
    "17 dimensions as a result": (
        "dimensions",
        RuntimeError,
        "but got 17.",
        lambda: ones(*(1,) * 16).unsqueeze(0).exp(),
    ),
    "an LSTM with projections": (
        "lstm-projections",
        RuntimeError,
        "LSTM with projections is not currently supported with MPS.",
        lambda: torch.nn.LSTM(4, 6, proj_size=3, device="mps")(ones(5, 2, 4)),
    ),
    "negative beta in the gradient of smooth_l1_loss": (
        "smooth-l1-backward-beta",
        RuntimeError,
        "smooth_l1_loss_backward does not support negative values for beta.",
        lambda: torch.ops.aten.smooth_l1_loss_backward(ones(3), ones(3), ones(3), 1, -1.0),
    ),
    "attention of integers": (
        "attention",
        NotImplementedError,
        "scaled_dot_product_attention for MPS does not support dtype Int",
        lambda: F.scaled_dot_product_attention(*[ones(1, 1, 2, 2, dtype=torch.int32)] * 3),
    ),
}


BEFORE_2_15: dict[str, tuple[str, type[Exception], str, Callable[[], object]]] = {
    "complex upsampling": (
        "upsampling-complex",
        NotImplementedError,
        "upsample for MPS does not support complex inputs",
        lambda: F.interpolate(ones(1, 1, 4, 4, dtype=C64), scale_factor=2),
    ),
    "complex scores": (
        "nll-loss-complex",
        NotImplementedError,
        "nlld_loss for complex is not supported for MPS",
        lambda: F.nll_loss(ones(2, 3, dtype=C64), ones(2, dtype=I64)),
    ),
    "softmax of integers": (
        "softmax-dtype",
        RuntimeError,
        "softmax only supported for floating types",
        lambda: ones(3, dtype=torch.int32).softmax(0),
    ),
    "log_softmax of integers": (
        "log-softmax-integers",
        NotImplementedError,
        "MPS doesn't know how to do exponent_i64",
        lambda: ones(3, dtype=I64).log_softmax(0),
    ),
    "log_softmax of booleans": (
        "log-softmax-bool",
        NotImplementedError,
        "log_softmax for bool is not supported for MPS",
        lambda: ones(3, dtype=torch.bool).log_softmax(0),
    ),
    "complex log_softmax": (
        "log-softmax-complex",
        NotImplementedError,
        "log_softmax for complex is not supported for MPS",
        lambda: ones(3, dtype=C64).log_softmax(0),
    ),
    "complex determinant": ("determinant-dtype", RuntimeError, NO_COMPLEX_LU, lambda: torch.linalg.det(identity(C64))),
    "logarithm of a complex determinant": (
        "logarithm-of-determinant-complex",
        RuntimeError,
        NO_COMPLEX_LU,
        lambda: torch.linalg.slogdet(identity(C64)),
    ),
    "triangular system in half precision": (
        "triangular-dtype",
        RuntimeError,
        r"linalg.solve.triangular\(\); Only float is supported!",
        lambda: torch.linalg.solve_triangular(identity(torch.half), identity(torch.half), upper=True),
    ),
    "complex system with a Cholesky factor": (
        "triangular-dtype",
        RuntimeError,
        r"linalg.solve.triangular\(\); Only float is supported!",
        lambda: torch.cholesky_solve(identity(C64), identity(C64)),
    ),
    "complex lu": (
        "lu-dtype",
        RuntimeError,
        r"linalg.lu_factor\(\): MPS doesn't support complex types.",
        lambda: torch.linalg.lu_factor(identity(C64)),
    ),
    "complex variance": ("complex", RuntimeError, "not supported for ComplexFloat", lambda: ones(3, dtype=C64).var()),
    "complex alpha": (
        "complex-factor",
        RuntimeError,
        "cannot be converted to type double without overflow",
        lambda: torch.addmm(identity(C64), identity(C64), identity(C64), alpha=1j),
    ),
    "softmax of more elements than an int": (
        "elements-of-softmax",
        RuntimeError,
        "MPSGraph does not support tensor dims larger than INT_MAX",
        lambda: large(torch.float16).softmax(-1),
    ),
}
"""What 2.13 and 2.14 refuse, and 2.15 does not."""

SINCE_2_14: dict[str, tuple[str, type[Exception], str, Callable[[], object]]] = {
    "unique complex numbers": (
        "unique-dtype",
        RuntimeError,
        "unique is not supported on MPS for dtype ComplexFloat",
        lambda: ones(3, dtype=C64).unique(),
    ),
    "integer geqrf": (
        "geqrf-integers",
        RuntimeError,
        "geqrf: MPS currently supports float32 only",
        lambda: torch.geqrf(identity(I64)),
    ),
    "Cholesky in half precision": (
        "cholesky-dtype",
        RuntimeError,
        "linalg.cholesky: MPS supports float32 and complex64, but got BFloat16",
        lambda: torch.linalg.cholesky(identity(torch.bfloat16)),
    ),
    "complex qr": (
        "qr-dtype",
        RuntimeError,
        "geqrf: MPS currently supports float32 only",
        lambda: torch.linalg.qr(identity(C64)),
    ),
    "singular values in half precision": (
        "svd-dtype",
        RuntimeError,
        "linalg.svd: the MPS backend supports only float32 and complex64. Got Half. Move the tensor to CPU for",
        lambda: torch.linalg.svdvals(identity(torch.float16)),
    ),
}
"""What 2.14 and 2.15 refuse, in these words."""

BY_RELEASE: dict[str, dict[str, tuple[str, type[Exception], str, Callable[[], object]]]] = {
    "2.13": {
        "complex qr": (
            "qr-dtype",
            RuntimeError,
            "linalg_qr: MPS currently supports float32 only",
            lambda: torch.linalg.qr(identity(C64)),
        ),
        "complex mish": (
            "mish-complex",
            RuntimeError,
            "Mish for complex is not supported for MPS",
            lambda: F.mish(ones(2, dtype=C64)),
        ),
        "complex batch_norm": (
            "batch-norm-complex",
            RuntimeError,
            "Batch norm for complex is not supported for MPS",
            lambda: F.batch_norm(ones(2, 3, dtype=C64), None, None, training=True),
        ),
        "gradient of batch_norm with channels_last": (
            "batch-norm-channels-last",
            RuntimeError,
            "view size is not compatible with input tensor's size and stride",
            lambda: (
                F.batch_norm(
                    ones(2, 3, 2, 2).to(memory_format=torch.channels_last).requires_grad_(), None, None, training=True
                )
                .sum()
                .backward()
            ),
        ),
        "batch_norm of integers": (
            "batch-norm-integers",
            RuntimeError,
            "Long batch norm is not supported with MPS",
            lambda: F.batch_norm(ones(2, 3, dtype=I64), None, None, training=True),
        ),
        "complex solve": (
            "solve-complex",
            RuntimeError,
            r"linalg.lu_factor\(\): MPS only supports floats.",
            lambda: torch.linalg.solve(identity(C64), identity(C64)),
        ),
        "complex Cholesky": (
            "complex",
            RuntimeError,
            "aten::linalg_cholesky_ex is not supported for ComplexFloat",
            lambda: torch.linalg.cholesky(identity(C64)),
        ),
        "nonzero of more elements than an int": (
            "elements-of-nonzero",
            RuntimeError,
            "nonzero is not supported for tensors with more than INT_MAX elements",
            lambda: large(torch.bool).nonzero(),
        ),
        "a mask of more elements than an int": (
            "elements-of-mask",
            RuntimeError,
            "nonzero is not supported for tensors with more than INT_MAX elements",
            lambda: large(torch.float32)[large(torch.bool)],
        ),
        "masked_select from more elements than an int": (
            "elements-of-mask",
            RuntimeError,
            "nonzero is not supported for tensors with more than INT_MAX elements",
            lambda: large(torch.float32).masked_select(large(torch.bool)),
        ),
        "layer_norm of half with float32 weights": (
            "layer-norm-mixed",
            RuntimeError,
            "layer_norm of Half, Float",
            lambda: F.layer_norm(ones(2, 4).half(), (4,), ones(4), ones(4)),
        ),
    },
    "2.14": {
        "complex solve": (
            "solve-complex",
            RuntimeError,
            r"linalg.lu_factor\(\): MPS doesn't support complex types.",
            lambda: torch.linalg.solve(identity(C64), identity(C64)),
        ),
        "complex solve of a factored matrix": (
            "lu-solve-dtype",
            RuntimeError,
            r"linalg.lu_solve\(\): MPS only supports float32.",
            lambda: torch.linalg.lu_solve(identity(C64), torch.tensor([1, 2], device="mps").int(), identity(C64)),
        ),
    },
    "2.15": {
        "complex scores": (
            "nll-loss-complex",
            NotImplementedError,
            "nll_loss is not implemented for ComplexFloat on MPS",
            lambda: F.nll_loss(ones(2, 3, dtype=C64), ones(2, dtype=I64)),
        ),
        "softmax of integers": (
            "softmax-dtype",
            NotImplementedError,
            "softmax not implemented on MPS for Int",
            lambda: ones(3, dtype=torch.int32).softmax(0),
        ),
        "lu in half precision": (
            "lu-dtype",
            RuntimeError,
            r"linalg.lu_factor\(\): MPS supports float32 and complex64 inputs, got Half",
            lambda: torch.linalg.lu(identity(torch.half)),
        ),
        "determinant in half precision": (
            "determinant-dtype",
            RuntimeError,
            r"linalg.lu_factor\(\): MPS supports float32 and complex64 inputs, got Half",
            lambda: torch.ops.aten._linalg_det(identity(torch.half)),
        ),
        "solve in half precision": (
            "solve-complex",
            RuntimeError,
            r"linalg.lu_factor\(\): MPS supports float32 and complex64 inputs, got Half",
            lambda: torch.ops.aten._linalg_solve_ex(identity(torch.half), identity(torch.half)),
        ),
        "solve of a factored matrix in half precision": (
            "lu-solve-dtype",
            RuntimeError,
            r"linalg.lu_solve\(\): MPS only supports float32 and complex64, got Half",
            lambda: torch.linalg.lu_solve(
                identity(torch.half), torch.tensor([1, 2], device="mps").int(), identity(torch.half)
            ),
        ),
        "triangular system in half precision": (
            "triangular-dtype",
            RuntimeError,
            r"linalg.solve_triangular\(\): MPS only supports float32 and complex64, got Half",
            lambda: torch.linalg.solve_triangular(identity(torch.half), identity(torch.half), upper=True),
        ),
        "complex factor": (
            "complex-factor",
            RuntimeError,
            "cannot be converted to type double without overflow",
            lambda: torch.addr(identity(C64), identity(C64)[0], identity(C64)[0], alpha=1j),
        ),
        "complex renorm": ("complex", RuntimeError, "renorm is not supported", lambda: identity(C64).renorm(2, 0, 1.0)),
        "pooling of more elements than an int": (
            "pooling-64-bit",
            RuntimeError,
            "MPS pooling does not support tensors that require 64-bit indexing",
            lambda: F.avg_pool2d(torch.zeros((), device="mps").expand(1, 1 << 16, 1 << 15), 2),
        ),
        "complex log_softmax": (
            "log-softmax-dtype",
            NotImplementedError,
            "log_softmax not implemented on MPS for ComplexFloat",
            lambda: F.log_softmax(identity(C64), 0),
        ),
        "logspace of integers": (
            "logspace-integers",
            RuntimeError,
            "logspace is not implemented for integral dtypes on MPS",
            lambda: torch.logspace(0, 1, 3, dtype=torch.int32, device="mps"),
        ),
    },
}
"""What one release refuses and another does not, or in other words."""

REFUSED |= BY_RELEASE[TORCH] | ({} if TORCH == "2.15" else BEFORE_2_15) | ({} if TORCH == "2.13" else SINCE_2_14)

Notice = tuple[str, str, str, Callable[[], object], Callable[[], object]]
SAID: dict[str, Notice] = {
    "average pooling of integers with a divisor": (
        "average-pooling-divisor",
        "aten::avg_pool2d",
        "MPS: passing divisor to Average Pooling op with int64 input is not supported on MPS backend. Falling back on",
        lambda: F.avg_pool2d(ones(1, 1, 4, 4, dtype=I64), 2, divisor_override=3),
        lambda: F.avg_pool2d(ones(1, 1, 4, 4, dtype=I64), 2),
    ),
}
"""What runs on the CPU and says so: rule, operator, the warning's beginning, a call that does and one that does not."""

SAID |= {
    "2.13": {
        "qr of a large matrix": (
            "qr-large",
            "aten::linalg_qr",
            "linalg_qr: MPS implementation is currently limited to min(m,n) <= 512, falling back to CPU.",
            lambda: torch.linalg.qr(ones(513, 513)),
            lambda: torch.linalg.qr(ones(600, 512)),
        ),
    },
    "2.14": {
        "singular values of a large matrix": (
            "svd-large",
            "aten::_linalg_svd",
            "linalg.svd: matrix too large to stage in MPS threadgroup memory (33024 > 32768 bytes)",
            lambda: torch.linalg.svd(ones(129, 64)),
            lambda: torch.linalg.svd(ones(128, 64)),
        ),
        "eigenvalues of a large matrix": (
            "eigh-large",
            "aten::_linalg_eigh",
            "linalg.eigh: matrix too large to stage in MPS threadgroup memory (33800 > 32768 bytes)",
            lambda: torch.linalg.eigvalsh(ones(65, 65)),
            lambda: torch.linalg.eigvalsh(ones(64, 64)),
        ),
    },
}["2.13" if TORCH == "2.13" else "2.14"]


@pytest.fixture
def counted(device: Device) -> Iterator[Device]:
    device.rules.reset()
    yield device
    device.rules.reset()


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_and_counted_under_the_rules_name(counted: Device, case: str) -> None:
    """The exception and its text, which for most are torch's own."""
    name, error, text, call = REFUSED[case]
    with pytest.raises(error, match=text):
        call()
    assert counted.rules.refused == {name: 1}


@pytest.mark.parametrize("case", SAID)
def test_what_runs_on_the_cpu_is_said_and_counted(counted: Device, recwarn: pytest.WarningsRecorder, case: str) -> None:
    """In torch's words; once, unless every warning is asked for."""
    _, op, text, call, other = SAID[case]
    always = torch.is_warn_always_enabled()
    try:
        torch.set_warn_always(True)
        call()
    finally:
        torch.set_warn_always(always)
    assert [str(warning.message) for warning in recwarn if str(warning.message).startswith(text)]
    recwarn.clear()
    call()
    assert counted.rules.fell_back == {op: 2} and not recwarn.list
    other()
    assert counted.rules.fell_back == {op: 2} and counted.rules.refused == {}


ON_AN_OLDER_MACOS = {"convolution-channels"}


def test_every_rule_of_the_data_file_has_a_call_that_it_refuses() -> None:
    """And every one names its source."""
    shown = {case[0] for case in (*REFUSED.values(), *SAID.values())}
    assert {rule.name for rule in TABLE.refusals} <= shown | ON_AN_OLDER_MACOS
    assert all(rule.source for rule in TABLE.refusals)


IN_OTHER_WORDS = {
    "complex-factor": "c10::Scalar says it",
    "layer-norm-mixed": "a Mac says nothing in the forward",
}


@pytest.mark.parametrize("torch_release", records.releases())
def test_words_that_torchs_mps_sources_say_are_in_the_wheel(torch_release: str) -> None:
    """Rules that name a source of the mps backend have its message, as the binary has it, which may be in pieces."""
    lines = [line.partition(": ")[2] for line in records.record(torch_release).sections["refusals"]]
    for rule in tables.for_torch(torch_release).refusals:
        if ".mm" in rule.source and rule.name not in IN_OTHER_WORDS:
            message = rule.message.replace("{name}", "zeta")
            said = [line for line in lines if len(line) > 20 and line in message]
            said += [line for line in lines if message.strip() in line]
            assert said, f"{rule.name}: torch {torch_release} for macOS does not say {rule.message!r}"


def test_operators_that_the_data_file_names_exist() -> None:
    """A misspelt operator would be a rule without effect."""
    names = {name for rule in TABLE.refusals for name in (*rule.operators, *rule.except_)} | set(TABLE.on_cpu)
    known = {f"{s.name}.{s.overload_name}".rstrip(".") for s in torch._C._jit_get_all_schemas()}
    assert names - {"*"} <= known


ALLOWED: dict[str, Callable[[], Tensor]] = {
    "float8 is stored, copied and viewed": lambda: (
        torch.tensor([0.5, 2.0]).to(torch.float8_e4m3fn).to("mps").clone().view(torch.uint8)
    ),
    "integer matmul": lambda: ones(2, 2, dtype=I64) @ ones(2, 2, dtype=I64),
    "max_pool2d of integers": lambda: F.max_pool2d(
        torch.arange(16, device="mps").view(1, 1, 4, 4), 2, return_indices=True
    )[1],
    "complex arithmetic": lambda: ones(2, dtype=C64) * 1j + 1,
    "complex addmm with a real factor": lambda: torch.addmm(identity(C64), identity(C64), identity(C64), alpha=2),
    "mixed dtypes promote": lambda: ones(2).half() * ones(2) + ones(2, dtype=I64),
    "layer_norm in one dtype": lambda: F.layer_norm(torch.arange(4.0, device="mps").half(), (4,), ones(4).half()),
    "pooling to a divisor": lambda: F.adaptive_avg_pool2d(torch.arange(16.0, device="mps").view(1, 4, 4), (2, 2)),
    "16 dimensions": lambda: ones(*(1,) * 16).exp(),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_a_mac_can_do_is_not_refused(counted: Device, case: str) -> None:
    """Beside each rule there is something that it must not stop."""
    assert ALLOWED[case]().device.type == "mps"
    assert counted.rules.refused == {}


def test_linear_has_its_gradients() -> None:
    """Rules in front of a composite operator leave its differentiation alone."""
    x, weight = (
        torch.randn(2, 3, 4, device="mps", requires_grad=True),
        torch.randn(5, 4, device="mps", requires_grad=True),
    )
    F.linear(x, weight).sum().backward()
    assert torch.allclose(x.grad.cpu(), weight.detach().cpu().sum(0).expand(2, 3, 4), atol=1e-6)
    assert torch.allclose(weight.grad.cpu(), x.detach().cpu().sum((0, 1)).expand(5, 4), atol=1e-6)


def test_rules_of_an_older_macos(counted: Device) -> None:
    """Before macOS 14 there is no bfloat16; before 15.1 convolutions have at most 65536 channels."""
    mac = counted.mac
    wide = ones(65537, 1, 1)
    assert F.conv1d(ones(1, 1, 1), wide).shape == (1, 65537, 1)
    try:
        counted._native.set_macos(13, 6)
        with pytest.raises(TypeError, match="MPS BFloat16 is only supported on MacOS 14 or newer"):
            torch.zeros(2, dtype=torch.bfloat16, device="mps")
        with pytest.raises(NotImplementedError, match="Output channels > 65536 not supported"):
            F.conv1d(ones(1, 1, 1), wide)
    finally:
        counted.become(mac)
    assert counted.rules.refused == {"bfloat16": 1, "convolution-channels": 1}
