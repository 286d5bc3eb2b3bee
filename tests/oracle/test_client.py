"""The oracle fails loudly, and carries tensors unchanged."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from tests.oracle import PATCHED, Oracle, OracleError, client


def test_without_triton_it_fails_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A skipped comparison would look like a passed one."""
    monkeypatch.setattr(client, "TRITON", tmp_path)
    with pytest.raises(OracleError, match=rf"no Triton in {tmp_path}(.|\n)*--target {tmp_path} triton=="):
        Oracle("interpreted").call("gated:forward")


def test_a_case_that_raises_gives_its_traceback() -> None:
    """And the child lives on for the next call."""
    with pytest.raises(OracleError, match=r"gated:forward in the patched oracle(.|\n)*KeyError: 'nosuch'"):
        PATCHED.call("gated:forward", "nosuch", torch.ones(1), torch.ones(1))
    e = torch.ones(1, 2, 4)
    assert PATCHED.call("gated:forward", "swiglu", e, e).shape == e.shape


def test_strides_aliasing_and_leaves_survive_the_way() -> None:
    """Cases about in-place and strided kernels need the tensors as they were."""
    base = torch.arange(6.0)
    given = (base.view(2, 3).t(), base, torch.ones(2, dtype=torch.bfloat16, requires_grad=True))
    stream = io.BytesIO()
    client.send(stream, given)
    stream.seek(0)
    strided, flat, leaf = client.receive(stream)
    assert strided.stride() == (1, 3) and leaf.requires_grad and leaf.dtype == torch.bfloat16
    flat[1] = 7
    assert strided[1, 0] == 7
