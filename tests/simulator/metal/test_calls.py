"""torch.mps.compile_shader's calling convention, and its errors."""

from __future__ import annotations

import pytest
import torch

from patcher.simulator.metal import compile_shader
from tests.simulator.metal.kernels import filled, library, source

COPY = """
kernel void copy(device float* out, constant float* in, uint i [[thread_position_in_grid]]) { out[i] = in[i]; }
kernel void bytes(device uchar* out, constant uchar* in, uint i [[thread_position_in_grid]]) { out[i] = in[i]; }
kernel void ordered(constant float* b [[buffer(2)]], device float* out, constant float* a [[buffer(1)]],
                    uint i [[thread_position_in_grid]]) { out[i] = a[i] - b[i]; }
[[max_total_threads_per_threadgroup(64)]]
kernel void small_groups(device float* out, uint i [[thread_index_in_threadgroup]],
                         uint g [[thread_position_in_grid]]) { out[g] = i; }
"""


def test_the_documented_example() -> None:
    """The example of torch.mps.compile_shader's documentation; the number of threads is the first tensor's."""
    lib = torch.mps.compile_shader(
        "kernel void full(device float* out, constant float& val, uint idx [[thread_position_in_grid]])"
        " { out[idx] = val; }"
    )
    x = torch.zeros(16, device="mps")
    lib.full(x, 3.14)
    assert torch.equal(x.cpu(), torch.full((16,), 3.14))
    assert dir(lib) == ["full"]
    assert (lib.full.max_threads_per_threadgroup, lib.full.thread_execution_width) == (1024, 32)


def test_tensors_pass_their_offset_but_not_their_strides() -> None:
    """A view begins at its offset; a transposed tensor is read in the order of its storage."""
    lib = torch.mps.compile_shader(COPY)
    x = torch.arange(12.0, device="mps").view(3, 4)
    out = filled(4)
    lib.copy(out, x[1])
    assert out.tolist() == [4, 5, 6, 7]
    out = filled(12)
    lib.copy(out, x.t())
    assert out.tolist() == list(range(12))
    whole = filled(6)
    lib.copy(whole[2:4], x)
    assert whole.tolist() == [77, 77, 0, 1, 77, 77]


def test_buffers_with_a_number_of_their_own() -> None:
    """[[buffer(n)]] says which argument a parameter takes; parameters without take the numbers that are left."""
    a, b, out = torch.full((3,), 5.0, device="mps"), torch.ones(3, device="mps"), filled(3)
    torch.mps.compile_shader(COPY).ordered(out, a, b)
    assert out.tolist() == [4, 4, 4]


@pytest.mark.parametrize(
    ("value", "cast", "expected"),
    [
        (-3, None, torch.tensor([-3], dtype=torch.int64)),
        (True, None, torch.tensor([1], dtype=torch.int64)),
        (2.5, None, torch.tensor([2.5])),
        ([1, -2], None, torch.tensor([1, -2], dtype=torch.int64)),
        ((0.5, 1), None, torch.tensor([0.5, 1.0])),
        (70000, "int16", torch.tensor([4464], dtype=torch.int16)),
        ([-1, 2, 3], "int32", torch.tensor([-1, 2, 3], dtype=torch.int32)),
        (-1, "uint8", torch.tensor([255], dtype=torch.uint8)),
        (2.7, "int8", torch.tensor([2], dtype=torch.int8)),
        (0.1, "fp16", torch.tensor([0.1]).half()),
        ([0.1, 3.0], {1: "bf16"}, torch.tensor([0.1, 3.0]).bfloat16()),
        (0.1, {0: "bf16"}, torch.tensor([0.1])),
    ],
)
def test_numbers(value: object, cast: object, expected: torch.Tensor) -> None:
    """Numbers are int64 and float32 unless a cast, for all arguments or for one, says otherwise."""
    wanted = expected.view(torch.uint8).tolist()
    out = torch.zeros(len(wanted), dtype=torch.uint8, device="mps")
    torch.mps.compile_shader(COPY).bytes(out, value, arg_casts=cast)
    assert out.tolist() == wanted


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64, torch.bool])
def test_cpu_tensors_without_dimensions(dtype: torch.dtype) -> None:
    """They pass their value, double as float: this is how Inductor passes Python numbers."""
    scalar = torch.tensor(3).to(dtype)
    wanted = (scalar.float() if dtype is torch.float64 else scalar).view(1).view(torch.uint8).tolist()
    out = torch.zeros(len(wanted), dtype=torch.uint8, device="mps")
    torch.mps.compile_shader(COPY).bytes(out, scalar)
    assert out.tolist() == wanted


def test_lists_of_tensors_pass_addresses() -> None:
    """A list of tensors arrives as pointers to their first elements."""
    a, b, out = torch.ones(4, device="mps"), torch.arange(6.0, device="mps"), filled(4)
    library("small").through_addresses([a, b[2:]], out, threads=4)
    assert out.tolist() == [3, 4, 5, 6]


def test_threads_and_groups() -> None:
    """threads and group_size as an int or a list; a kernel's own limit on the group; nothing to do for no threads."""
    lib = torch.mps.compile_shader(COPY)
    assert lib.small_groups.max_threads_per_threadgroup == 64
    out = filled(100)
    lib.small_groups(out)
    assert out.tolist() == [*range(64), *range(36)]
    lib.small_groups(out, threads=[100], group_size=[10])
    assert out.tolist() == list(range(10)) * 10
    lib.small_groups(torch.empty(0, device="mps"))
    lib.small_groups(filled(1), threads=0)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((3.0,), {}, RuntimeError, "Number of threads is undefined or has wrong dimension"),
        ((), {"threads": [1, 1, 1, 1]}, RuntimeError, "Number of threads is undefined or has wrong dimension"),
        ((), {"threads": [4, 4], "group_size": 4}, RuntimeError, "threads->size\\(\\) == group_size->size\\(\\)"),
        ((), {"threads": 2048, "group_size": 2048}, ValueError, "Threadgroup size exceeds 1024 limit"),
        (([],), {"threads": 1}, RuntimeError, "Empty list/tuple can not be an argument to metal kernel"),
        ((["a"],), {"threads": 1}, RuntimeError, "Unexpected argument types"),
        (("a",), {"threads": 1}, RuntimeError, "Unsupported argument type"),
        ((None,), {"threads": 1}, RuntimeError, "Unsupported argument type"),
        ((1.0,), {"threads": 1, "arg_casts": "fp8"}, RuntimeError, "Unsupported cast instruction fp8"),
        ((1.0,), {"threads": 1}, RuntimeError, "copy takes 2 buffers, 1 were given"),
        ((torch.zeros(2),), {}, RuntimeError, "Passed CPU tensor to MPS op"),
        (([torch.zeros(2)],), {"threads": 1}, RuntimeError, "Passed CPU tensor to MPS op"),
    ],
)
def test_wrong_calls(
    arguments: tuple[object, ...], keywords: dict[str, object], error: type[Exception], message: str
) -> None:
    """The errors are torch's; a missing buffer, which a Mac does not notice, is one too."""
    with pytest.raises(error, match=message):
        torch.mps.compile_shader(COPY).copy(*arguments, **keywords)


def test_unknown_kernel() -> None:
    """A name that the source does not define."""
    with pytest.raises(RuntimeError, match="Failed to create function state object for: paste"):
        _ = torch.mps.compile_shader(COPY).paste


def test_metallib_is_refused() -> None:
    """A compiled library holds code for Apple's GPUs."""
    with pytest.raises(RuntimeError, match=r"cannot run a \.metallib"):
        torch.mps.load_metallib(b"MTLB")
    with pytest.raises(RuntimeError, match=r"cannot run a \.metallib"):
        torch.mps.load_metallib("kernels.metallib")


def test_threadgroup_memory_is_limited() -> None:
    """32 KB a group, as on every Apple GPU."""
    with pytest.raises(RuntimeError, match=r"Threadgroup memory size \(32772\) exceeds .* allowed \(32768\)"):
        library("small").too_much(filled(4), threads=4)


def test_a_barrier_that_not_all_threads_reach() -> None:
    """On a GPU the result is undefined; here it is an error with the line."""
    with pytest.raises(RuntimeError, match=r"left_early: the barrier at program_source:\d+ was reached by 57 of 64"):
        library("small").left_early(filled(64), threads=64, group_size=64)


def test_function_constants_without_a_value() -> None:
    """torch cannot give function constants a value; a kernel that needs one does not start."""
    lib = compile_shader(source("small"))
    with pytest.raises(RuntimeError, match="function constants 0, 1 of constants have no value"):
        lib.constants(filled(2), threads=2)


def test_reported_errors_are_raised_at_the_next_wait() -> None:
    """TORCH_REPORT_ERROR of <c10/metal/error.h>: the text of the first message, as torch's checkLastError has it."""
    lib = torch.mps.compile_shader(
        "#include <c10/metal/error.h>\n"
        "kernel void check(device float* out, device c10::metal::ErrorMessages* errors,\n"
        "                  uint i [[thread_position_in_grid]]) {\n"
        '  if (out[i] < 0) { TORCH_REPORT_ERROR(errors, "value ", long(i), " of ", long(-out[i]), " is negative"); }\n'
        "}\n"
        "kernel void middle(device float* out, device c10::metal::ErrorMessages* errors, constant float* x,\n"
        "                   uint i [[thread_position_in_grid]]) { out[i] = x[i]; }\n"
    )
    ones = torch.ones(8, device="mps")
    lib.check(ones, error_buf_idx=1)
    torch.mps.synchronize()
    lib.check(-ones, error_buf_idx=1)
    lib.check(-2 * ones, error_buf_idx=1)
    with pytest.raises(torch.AcceleratorError, match=r"^value 0 of 1 is negative"):
        torch.mps.synchronize()
    torch.mps.synchronize()
    out = torch.zeros(8, device="mps")
    lib.middle(out, ones, 2 * ones, error_buf_idx=1)  # in place of the argument of that number
    assert out.tolist() == [2.0] * 8


def test_torch_headers() -> None:
    """Special functions, random numbers and reductions of <c10/metal/...>, which torch puts into the source."""
    lib = torch.mps.compile_shader(
        """#include <c10/metal/random.h>
        #include <c10/metal/reduction_utils.h>
        #include <c10/metal/special_math.h>
        kernel void i0(device float* out, constant float* x, uint i [[thread_position_in_grid]]) {
          out[i] = c10::metal::i0(x[i]);
        }
        kernel void random(device float* out, constant long& seed, uint i [[thread_position_in_grid]]) {
          out[i] = c10::metal::randn(seed, i);
        }
        kernel void total(device float* out, constant float* x, uint i [[thread_position_in_threadgroup]],
                          uint n [[threads_per_threadgroup]]) {
          threadgroup float shared[32];
          const float sum = c10::metal::threadgroup_sum(shared, x[i], i, n);
          if (i == 0) out[0] = sum;
        }"""
    )
    x = torch.linspace(-3, 3, 50)
    out = filled(50)
    lib.i0(out, x.to("mps"))
    torch.testing.assert_close(out.cpu(), torch.special.i0(x), rtol=1e-6, atol=0)
    sample = filled(20000)
    lib.random(sample, 1234)
    # five standard errors of the mean and of the deviation of 20000 normal numbers
    assert abs(sample.mean().item()) < 5 / 20000**0.5 and abs(sample.std().item() - 1) < 5 / 40000**0.5
    values, one = torch.arange(100.0, device="mps"), filled(1)
    lib.total(one, values, threads=100, group_size=100)
    assert one.item() == 4950
