"""The reader of generated code finds every kind of leftover, and nothing in code that runs on any device."""

from __future__ import annotations

import pytest

from tests.contract.generated_code import judge, leftovers

PLANTED = [
    ("x = torch.zeros(3, device='cuda')", "device"),
    ("x.to('cuda:0')", "device"),
    ("torch.device('cuda', 0)", "device"),
    ("x.to(f'cuda:{rank}')", "device"),
    ("with torch.autocast('cuda'): pass", "device"),
    ("with torch.amp.autocast(device_type='cuda'): pass", "device"),
    ("device_map = {'': 'cuda:0'}", "device"),
    ("def f(device='cuda'): pass", "device"),
    ("if x.device.type == 'cuda': pass", "branch"),
    ("ok = device_type in ('cuda', 'xpu')", "branch"),
    ("ok = str(device).startswith('cuda')", "branch"),
    ("ok = x.is_cuda", "branch"),
    ("ok = torch.cuda.is_available()", "branch"),
    ("from torch import cuda\nok = cuda.is_available()", "branch"),
    ("ok = torch.version.cuda", "branch"),
    ("torch.cuda.nvtx.range_push('x')", "torch.cuda"),
    ("import torch.cuda as c\nc.device_count()", "torch.cuda"),
    ("from torch.cuda import CUDAGraph", "torch.cuda"),
    ("with torch.cuda.amp.autocast(): pass", "torch.cuda"),
    ("module = torch.cuda", "torch.cuda"),
    ("torch.backends.cuda.matmul.allow_tf32 = True", "backends"),
    ("torch.backends.cudnn.benchmark = True", "backends"),
    ("x = x.cuda()", "method"),
    ("import triton", "triton"),
    ("from triton import language as tl", "triton"),
    ("@triton.jit\ndef kernel(): pass", "triton"),
    ("kernel[grid](x)", "launch"),
    ("kernel[(n,)](x)", "launch"),
    ("kernel[lambda meta: (1,)](x)", "launch"),
    ("options = {'triton.cudagraphs': True}", "option"),
    ("torch.distributed.init_process_group('nccl')", "nccl"),
    ("probe = '''\nimport torch\nx = torch.zeros(1, device='cuda')\n'''", "device"),
]
CLEAN = '''
"""Text about cuda and torch.cuda.nvtx."""
import torch
from torch import cuda
def f(x):
    """cuda"""
    options = {"triton.cudagraphs": False}
    with torch.autocast(device_type=x.device.type):
        torch.cuda.empty_cache(); cuda.synchronize()
        return tools[name](x), x.to(x.device), x.device.type == "mps", "no CUDA here"
'''


@pytest.mark.parametrize(("code", "kind"), PLANTED)
def test_a_planted_leftover_is_found(code: str, kind: str) -> None:
    """Once, with its kind."""
    assert [one.kind for one in leftovers(code, "planted.py", {"empty_cache"})] == [kind]


def test_code_for_every_device_is_clean() -> None:
    """Docstrings, options that are off and what is answered for mps are no leftovers."""
    assert leftovers(CLEAN, "clean.py", {"empty_cache", "synchronize"}) == []


def test_a_place_is_named_by_its_function() -> None:
    """File, function, kind and expression are what an entry of the list names."""
    (found,) = leftovers("class A:\n    def f(self):\n        return self.x.cuda()", "a.py", ())
    assert str(found) == "a.py:3 A.f: method: self.x.cuda()"


def test_an_entry_allows_what_it_names_and_is_stale_without_it() -> None:
    """An entry for another function, kind or expression allows nothing, and says so."""
    found = leftovers("def f(x):\n    return x.cuda()", "a.py", ())
    entry = {"file": "*.py", "function": "f", "kind": "method", "code": ["x.cuda()"], "why": "a test"}
    assert judge(found, [entry]) == ([], [])
    for other in ({"file": "b.py"}, {"function": "g"}, {"kind": "device"}, {"code": ["y.cuda()"]}):
        assert judge(found, [{**entry, **other}]) == (found, [{**entry, **other}])
