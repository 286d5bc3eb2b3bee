"""Hand-written shaders give what torch gives on the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.simulator.metal.kernels import filled, library, normal

DTYPES = {"float": torch.float32, "half": torch.float16, "bfloat": torch.bfloat16}
EPS = {"float": 2.0**-23, "half": 2.0**-10, "bfloat": 2.0**-7}


@pytest.fixture(params=[False, True], ids=["forwards", "backwards"])
def backwards(request: pytest.FixtureRequest) -> bool:
    """Both orders in which the threads can take their turns."""
    return bool(request.param)


@pytest.mark.parametrize("name", DTYPES)
def test_rms_norm(name: str, backwards: bool) -> None:
    """Simdgroup sums, threadgroup memory, templates with a host name; rows longer than a threadgroup."""
    x = normal(5, 300, dtype=DTYPES[name])
    out = filled(5, 300, dtype=DTYPES[name])
    kernel = getattr(library("rows", backwards=backwards), f"rms_norm_{name}")
    kernel(out, x, 300, 1e-6, threads=5 * 96, group_size=96)
    wide = x.cpu().float()
    expected = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    # one rounding to the dtype, and float sums of 300 squares in another order
    torch.testing.assert_close(out.cpu().float(), expected, rtol=EPS[name] + 300 * 2.0**-24, atol=0)


def test_softmax(backwards: bool) -> None:
    """A tree reduction with a barrier at each step; a two-dimensional grid of one row a threadgroup."""
    x, out = normal(6, 333), filled(6, 333)
    library("rows", backwards=backwards).softmax(out, x, 333, threads=[128, 6], group_size=[128, 1])
    torch.testing.assert_close(out.cpu(), x.cpu().softmax(-1), rtol=1e-5, atol=1e-7)  # exp of the C library, 333 terms


@pytest.mark.parametrize("name", DTYPES)
def test_gemm(name: str, backwards: bool) -> None:
    """simdgroup_matrix products of tiles in threadgroup memory, with ragged edges."""
    m, n, k = 45, 50, 70
    a, b, c = normal(m, k, dtype=DTYPES[name]), normal(k, n, dtype=DTYPES[name]), filled(m, n, dtype=DTYPES[name])
    kernel = getattr(library("gemm", backwards=backwards), f"gemm_{name}")
    kernel(c, a, b, [m, n, k], threads=[2 * 128, 2, 1], group_size=[128, 1, 1], arg_casts={3: "int32"})
    expected = a.cpu().double() @ b.cpu().double()
    # float accumulation of k products of size about 1, one rounding to the dtype
    torch.testing.assert_close(c.cpu().double(), expected, rtol=EPS[name], atol=k * 2.0**-22)


@pytest.mark.parametrize(("name", "dtype", "width"), [("float_32", torch.float32, 32), ("half_64", torch.float16, 64)])
def test_flash_attention(name: str, dtype: torch.dtype, width: int, backwards: bool) -> None:
    """Causal attention with a running softmax, 27 queries that fill no tile, equals torch's."""
    heads, n = 2, 27
    q, k, v = (normal(heads, n, width, dtype=dtype) * s for s in (1.0, 0.9, 0.8))
    out = filled(heads, n, width, dtype=dtype)
    kernel = getattr(library("flash_attention", backwards=backwards), f"attention_{name}")
    kernel(out, q, k, v, n, width**-0.5, threads=[128, heads], group_size=[64, 1], arg_casts={4: "int32"})
    wide = (x.cpu().double()[None] for x in (q, k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(*wide, is_causal=True)[0]
    eps = EPS["float" if dtype is torch.float32 else "half"]
    torch.testing.assert_close(out.cpu().double(), expected, rtol=4 * eps, atol=4e-6 + eps)


def test_vectors_and_swizzles() -> None:
    """Components are read and written through swizzles; vectors are built from vectors."""
    x, y = normal(16, 4), normal(4, 16).view(16, 4)
    before, a = y.cpu().clone(), x.cpu()
    library("small").swizzles(y, x, [2.0, 3.0], threads=16)
    v = torch.stack([a[:, 0] * 2, a[:, 1] * 2, a[:, 3] * 3, a[:, 2] * 3], 1)
    expected = v * 2 + before[:, [0, 0, 2, 2]] + torch.cat([v[:, :3], torch.ones(16, 1)], 1)
    torch.testing.assert_close(y.cpu(), expected, rtol=2.0**-22, atol=2.0**-22)


def test_structures_and_tables() -> None:
    """A structure passed as bytes, an array in it, and a table in constant memory."""
    x, out = normal(12), filled(12)
    affine = torch.tensor([0.5, 0, 0]).view(torch.int32)
    affine[1:] = torch.tensor([4, -4], dtype=torch.int32)
    library("small").scaled(out, affine.to("mps"), x, threads=12)
    i = torch.arange(12)
    expected = x.cpu() * 0.5 + torch.tensor([4.0, -4.0])[i % 2] + torch.tensor([1.0, 10.0, 100.0])[i % 3]
    torch.testing.assert_close(out.cpu(), expected)


def test_atomics() -> None:
    """Counts and float sums from many threadgroups."""
    x = torch.randint(0, 10, (5000,), dtype=torch.int32)
    bins = torch.zeros(10, dtype=torch.int32, device="mps")
    library("small").histogram(bins, x.to("mps"), threads=5000, group_size=64)
    assert torch.equal(bins.cpu().long(), torch.bincount(x, minlength=10))
    out, values = torch.zeros(2, device="mps"), torch.full((1000,), 0.5, device="mps")
    library("small").float_sum(out, values, threads=1000)
    assert out[0].item() == 500.0  # sums of halves are exact
    assert out.view(torch.int32)[1].item() == 999


def test_lanes_of_a_simdgroup(backwards: bool) -> None:
    """Reductions, prefixes, shuffles, votes; a second simdgroup of 13 lanes; lanes that took different ways."""
    n = 45
    x, out = normal(n), filled(n, 16)
    library("small", backwards=backwards).lanes(out, x, threads=n, group_size=n)
    found, a = out.cpu().double(), x.cpu().double()
    for begin in (0, 32):
        group = a[begin : begin + 32]
        size = len(group)
        padded = torch.cat([group, torch.zeros(64, dtype=torch.float64)])
        mine = found[begin : begin + size]
        lane = torch.arange(size)
        fill = torch.cat([group, torch.zeros(32 - size, dtype=torch.float64), -group])
        quads = torch.stack([padded[lane // 4 * 4 + i] for i in range(4)]).sum(0)
        expected = [
            group.sum().expand(size),
            group.max().expand(size),
            group.cumsum(0),
            group.cumsum(0) - group,
            padded[lane + 3] * (lane + 3 < 32),
            torch.where(lane >= 3, padded[(lane - 3).clamp_min(0)], 0),
            padded[lane ^ 5] * ((lane ^ 5) < size),
            padded[31 - lane],
            padded[(lane + 1) % 32],
            group[0].expand(size),
            sum((2.0**i for i in range(size) if group[i] > 0), torch.tensor(0.0)).double().expand(size),
            fill[lane + 2],
            quads,
            padded[lane ^ 1],
            torch.ones(size, dtype=torch.float64),
            torch.where(lane % 2 == 1, group[1::2].sum(), group[0::2].min()),
        ]
        # sums of 32 numbers of size about 1 in float
        torch.testing.assert_close(mine, torch.stack(list(expected), 1), rtol=1e-6, atol=1e-5)


def test_places_in_a_ragged_grid() -> None:
    """Threads, groups and sizes in three dimensions where the last groups are smaller."""
    sizes, group = (5, 4, 3), (2, 3, 2)
    out = filled(sizes[2], sizes[1], sizes[0], 8, dtype=torch.int32)
    library("small").places(out, threads=sizes, group_size=group)
    found = out.cpu()
    for z in range(sizes[2]):
        for y in range(sizes[1]):
            for x in range(sizes[0]):
                at = (x, y, z)
                where = [at[d] // group[d] for d in range(3)]
                inside = [at[d] % group[d] for d in range(3)]
                size = [min(group[d], sizes[d] - where[d] * group[d]) for d in range(3)]
                index = (inside[2] * size[1] + inside[1]) * size[0] + inside[0]
                expected = [_digits(where), _digits(inside), _digits([3, 2, 2]), _digits(size), index]
                assert found[z, y, x, :5].tolist() == expected


def _digits(three: list[int]) -> int:
    return three[0] * 10000 + three[1] * 100 + three[2]


def test_overloads_for_address_spaces() -> None:
    """Functions that differ only in address space, threadgroup memory, enumerations, half literals, as_type."""
    out = filled(4)
    library("small").overloads(out, torch.full((4,), 3.0, device="mps"), threads=4)
    assert out.tolist() == [2 * 3 * 3 + 0.5 + 1] * 4


def test_function_constants() -> None:
    """Function constants get their values when the shader is compiled."""
    out = filled(3)
    library("small").constants(out, threads=3)
    assert out.tolist() == [-3.0] * 3


def test_quantised_blocks() -> None:
    """A packed structure of a half and bytes, read through pointers of another type into a matrix."""
    scale = torch.rand(2, generator=torch.Generator().manual_seed(0)).half()
    codes = torch.arange(32, dtype=torch.uint8).view(2, 16) * 7
    blocks = torch.cat([scale.view(2, 1).view(torch.uint8), codes], 1)
    out = filled(64)
    library("idioms").unpack_blocks(out, blocks.to("mps"), threads=4)
    expected = torch.cat([(codes & 15).float() - 8, (codes >> 4).float() - 8], 1) * scale.float()[:, None]
    assert torch.equal(out.cpu(), expected.flatten())  # small integers times a half are exact in float


@pytest.mark.parametrize(("name", "extra"), [("many_f_8", 0), ("many_h_8_true", 1), ("many_b_8", 0)])
def test_idioms(name: str, extra: float) -> None:
    """Structures by pointer, methods, attributes in all places, two-dimensional tiles, default template arguments."""
    dtype = {"f": torch.float32, "h": torch.float16, "b": torch.bfloat16}[name[5]]
    parameters = torch.tensor([8, 4, 0, 0, 0, 0], dtype=torch.int32)
    parameters.view(torch.float32)[2] = 3.0
    kernel = getattr(library("idioms"), name)
    assert kernel.max_threads_per_threadgroup == 64
    out = filled(64, dtype=dtype)
    ones = torch.ones(64, dtype=dtype, device="mps")
    kernel(ones, out, parameters.to("mps"), [1], 1, threads=[64, 1, 1], group_size=[64, 1, 1], arg_casts={3: "int32"})
    expected = [extra + (1.5, 6.0)[i % 2] if i < 32 else extra for i in range(64)]
    assert out.tolist() == expected


def test_control_flow() -> None:
    """Local arrays, switch, loops, bytes that wrap around."""
    out = filled(8)
    library("idioms").loops(out)
    assert out.tolist() == [1, 0, 1, 4, -1, 0, 3, 2]
