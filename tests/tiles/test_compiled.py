"""What a launch and a warmup give: the program, and what is known of its shader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.process import run_python
from tests.tiles.test_launch import triton as triton  # the fixture

ON_MPS = """
from patcher import patch_for_mac
patch_for_mac()
import torch, triton, triton.language as tl
from patcher.tiles.backends import launches

@triton.jit
def product(x, out, scale, N: tl.constexpr):
    n = tl.arange(0, N)
    at = n[:, None] * N + n[None, :]
    block = tl.load(x + at)
    tl.store(out + at, tl.dot(block, block) * scale)

properties = triton.runtime.driver.active.utils.get_device_properties(0)
x, out = torch.randn(32, 32).cuda(), torch.zeros(32, 32).cuda()
compiled = product.warmup(x, out, 2.0, N=32, num_warps=8, num_stages=2, grid=(1,))
compiled._init_handles()
assert not out.any()
meta = compiled.metadata
assert (meta.name, meta.num_warps, meta.num_stages, meta.num_ctas) == ("product", 8, 2, 1), meta
assert meta.target.backend == "mps" and 0 < meta.shared <= properties["max_shared_mem"], meta
declared = [line for line in compiled.asm["metal"].splitlines() if "threadgroup ulong scratch[" in line]
assert 0 <= meta.shared - 8 * int(declared[0].partition("[")[2].partition("]")[0]) < 16
assert compiled.n_regs == min(255, properties["max_num_regs"] // compiled.n_max_threads)
small = product.warmup(x, out, 2.0, N=16, num_warps=16, grid=(1,))
for each in (compiled, small):  # by which Triton's softmax chooses its grid
    warps = each.metadata.num_warps
    assert properties["max_num_regs"] // (each.n_regs * properties["warpSize"] * warps) >= 1
    assert properties["max_shared_mem"] // each.metadata.shared >= 1
assert "dot" in str(compiled) and compiled.asm["program"] == str(compiled) and compiled.name == "product"
compiled[(1, 1, 1)](x, out, 2.0, 32)
torch.testing.assert_close(out.cpu(), 2 * x.cpu() @ x.cpu(), atol=1e-4, rtol=1e-5)
launched = product[(1,)](x, out, 3.0, 32)
assert launched is product[(1,)](x, out, 4.0, 32) and launched is not compiled
assert product[(1,)](x, out, 3.0, 32, num_stages=5).metadata.num_stages == 5
assert launched.metadata.num_stages == 3
assert launched.metadata.num_warps == 4 and str(launched) == str(compiled)
assert {launched.back_end for launched in launches} == {"metal"}
print("TOLD")
"""


def test_what_is_told_of_a_shader(tmp_path: Path) -> None:
    """Threadgroup memory as its source declares it, registers by the threads that have enough, and it launches."""
    script = tmp_path / "script.py"
    script.write_text(ON_MPS)
    assert "TOLD" in run_python("-m", "patcher", "run", "--simulate", "1", str(script)).stdout


def test_without_a_shader_the_program_is_told(triton: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mps there are no registers to tell of; what has no shader has the threads that Metal allows."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    @triton.jit
    def kernel(x):
        triton.language.store(x, 1.0)

    x = torch.zeros(1)
    launched = kernel[(1,)](x)
    assert x[0] == 1 and list(launched.asm) == ["program"] and "store" in launched.asm["program"]
    assert launched.n_max_threads == 1024 and not hasattr(launched, "n_spills")
    with pytest.raises(RuntimeError, match="0 active"):
        _ = launched.n_regs


def test_where_no_configuration_fits_the_first_one_tells_why(triton: Any) -> None:
    """The others may fail at their own assertions."""
    tl = triton.language
    configs = [triton.Config({"BLOCK": size}) for size in (3, 64)]

    @triton.autotune(configs=configs, key=[])
    @triton.jit
    def kernel(x, BLOCK: tl.constexpr):
        tl.static_assert(BLOCK < 64)
        tl.store(x + tl.arange(0, BLOCK), 1.0)

    with pytest.raises(Exception, match="no power of two"):
        kernel[(1,)](torch.zeros(64))
