"""Operators that a Mac lacks: NotImplementedError, or the CPU under PYTORCH_ENABLE_MPS_FALLBACK; and their counts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
import torchgen

from patcher.errors import SimulatorUnavailable
from patcher.simulator import Device
from patcher.simulator.rules import load, presence, tables
from patcher.simulator.wheels import records
from tests.process import run_python
from tests.simulator.conftest import TORCH

MISSING = (
    "The operator 'aten::mode' is not currently implemented for the MPS device. If you want this op to be considered"
    " for addition please comment on https://github.com/pytorch/pytorch/issues/141287 and mention use-case, that"
    f" resulted in missing op as well as commit hash {records.record(TORCH).commit}. As a temporary fix, you can set"
    " the environment variable `PYTORCH_ENABLE_MPS_FALLBACK=1` to use the CPU as a fallback for this op. WARNING: this"
    " will be slower than running natively on MPS."
)
FELL_BACK = (
    "The operator 'aten::mode' is not currently supported on the MPS backend and will fall back to run on the CPU."
    " This may have performance implications."
)


@pytest.fixture
def rules(device: Device) -> Iterator[Device]:
    """The device without CPU fallback and with counts at zero; afterwards as it was."""
    before = device.rules.cpu_fallback
    device.rules.cpu_fallback = False
    device.rules.reset()
    yield device
    device.rules.cpu_fallback = before
    device.rules.reset()


def test_a_missing_operator_raises_with_the_text_of_a_mac(rules: Device) -> None:
    """torch's words, with torch's own commit, and a count."""
    with pytest.raises(NotImplementedError) as caught:
        torch.mode(torch.ones(3, device="mps"))
    assert str(caught.value) == MISSING
    assert rules.rules.missing == {"aten::mode": 1}
    assert rules.rules.fell_back == {}


LACKING: dict[str, tuple[str, Callable[[torch.Tensor], object]]] = {
    "functional of a structured operator": ("aten::special_airy_ai.out", torch.special.airy_ai),
    "part of a composite": ("aten::_linalg_eigvals", torch.linalg.eigvals),
    "loss": ("aten::multi_margin_loss", lambda x: F.multi_margin_loss(x, torch.tensor([0, 1, 2], device="mps"))),
    "in place": ("aten::logit_", lambda x: x.logit_()),
    "own backward": (
        "aten::_fused_adagrad_",
        lambda x: torch._fused_adagrad_(
            *[[x]] * 3, [x[0, 0]], lr=1.0, lr_decay=0.0, weight_decay=0.0, eps=1.0, maximize=False
        ),
    ),
}


SINCE_2_14: dict[str, tuple[str, Callable[[torch.Tensor], object]]] = {
    "part of a composite": ("aten::_linalg_svd.U", torch.linalg.svdvals),
    "loss": (
        "aten::_ctc_loss",
        lambda x: F.ctc_loss(x[:, None], *torch.ones(3, 1, dtype=torch.long, device="mps")),
    ),
    "random": ("aten::poisson", torch.poisson),
}


@pytest.mark.parametrize("case", SINCE_2_14)
def test_what_a_release_brings_is_missing_before(rules: Device, case: str) -> None:
    """Kernels that torch 2.14 has and 2.13 has not."""
    name, call = SINCE_2_14[case]
    x = torch.rand(3, 3, device="mps")
    if TORCH == "2.13":
        with pytest.raises(NotImplementedError, match=f"The operator '{name}' is not currently implemented"):
            call(x)
    else:
        call(x)
    assert rules.rules.missing == ({name: 1} if TORCH == "2.13" else {})


def test_what_a_release_has_no_more_is_refused(rules: Device) -> None:
    """torch.qr and torch.cholesky raise RuntimeError in torch 2.14; here the older torch that computes has them."""
    x = torch.eye(3, device="mps")
    if TORCH == "2.13":
        assert torch.equal(torch.qr(x).Q.abs(), x)
        assert rules.rules.not_on_a_mac == rules.rules.only_on_a_mac == []
        return
    for name, call in (("qr", torch.qr), ("cholesky", torch.cholesky)):
        with pytest.raises(RuntimeError, match=f"torch {rules.torch} on this Mac has no operator 'aten::{name}'"):
            call(x)
    assert rules.rules.refused == {"gone-from-torch": 2}
    assert rules.rules.not_on_a_mac == ["cholesky", "cholesky.out", "qr", "qr.Q"]
    assert {"linalg_polar", "linalg_matrix_sqrth"} <= set(rules.rules.only_on_a_mac)
    assert torch.equal(torch.linalg.qr(x).Q.abs().cpu(), x.cpu())


@pytest.mark.parametrize("case", LACKING)
def test_what_torchs_list_does_not_name_is_missing(rules: Device, case: str) -> None:
    """The operator named is the one that a Mac names: the out variant, or the composite's part."""
    name, call = LACKING[case]
    with pytest.raises(NotImplementedError, match=f"The operator '{name}' is not currently implemented"):
        call(torch.rand(3, 3, device="mps"))
    assert rules.rules.missing == {name: 1}


def test_with_the_variable_it_runs_on_the_cpu_and_warns(rules: Device) -> None:
    """The result is on mps, the warning has torch's text and place, the operator is counted each time."""
    rules.rules.cpu_fallback = True
    torch.set_warn_always(True)
    try:
        with pytest.warns(UserWarning) as caught:
            values, indices = torch.mode(torch.tensor([1.0, 2.0, 2.0], device="mps"))
    finally:
        torch.set_warn_always(False)
    torch.mode(values[None])
    assert (values.item(), indices.device.type) == (2.0, "mps")
    text = str(caught[0].message)
    assert text.startswith(FELL_BACK) and "aten/src/ATen/mps/MPSFallback.mm:" in text
    assert rules.rules.fell_back == {"aten::mode": 2}
    assert rules.rules.missing == {}


def test_some_operators_are_always_on_the_cpu(rules: Device) -> None:
    """embedding_renorm_, and linalg_svd up to torch 2.13, fall back without the variable, as torch registers them."""
    table = torch.tensor([[3.0, 4.0], [0.6, 0.8]], device="mps")
    x = torch.diag(torch.tensor([3.0, 2.0])).to("mps").requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        F.embedding(torch.tensor([0, 1], device="mps"), table, max_norm=2.5)
        torch.linalg.svd(x).S.sum().backward()
    assert torch.allclose(table.cpu(), torch.tensor([[1.5, 2.0], [0.6, 0.8]]), atol=1e-6)
    assert x.grad is not None and torch.equal(x.grad.cpu(), torch.eye(2))
    assert rules.rules.fell_back == {"aten::embedding_renorm_": 1} | (
        {"aten::linalg_svd": 1} if TORCH == "2.13" else {}
    )


@pytest.mark.parametrize(("value", "wanted"), [(None, False), ("0", False), ("1", True), ("", True), ("no", True)])
def test_any_text_but_0_switches_the_fallback_on(
    monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: bool
) -> None:
    """As torch reads the variable: "no" and "" mean yes."""
    monkeypatch.delenv(tables.FALLBACK, raising=False)
    if value is not None:
        monkeypatch.setenv(tables.FALLBACK, value)
    assert tables.fallback_wanted() == wanted


def test_the_variable_is_read_at_the_start_and_one_operator_is_named() -> None:
    """Later changes are ignored, as on a Mac after torch is loaded, and only the first operator is ever warned of."""
    script = """
import os, warnings, torch
from patcher.simulator import start
start()
os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] = "0"
x = torch.ones(3, device="mps")
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    torch.mode(x), torch.heaviside(x, x)
print(len(caught), "aten::mode" in str(caught[0].message))
"""
    done = run_python("-c", script, check=False, PYTORCH_ENABLE_MPS_FALLBACK="1")
    assert done.stdout.strip() == "1 True", done.stderr


def test_float64_attempts_are_counted(rules: Device) -> None:
    """Each refused float64 or complex128 tensor is one attempt."""
    for attempt in (
        lambda: torch.zeros(1, dtype=torch.float64, device="mps"),
        lambda: torch.ones(1, device="mps").double(),
    ):
        with pytest.raises(TypeError):
            attempt()
    assert rules.rules.float64 == 2
    rules.rules.reset()
    assert rules.rules.float64 == 0


def test_presence_is_read_from_torchs_own_list() -> None:
    """Own kernels, structured delegates and comments in native_functions.yaml."""
    with Path(torchgen.__file__).with_name("packaged").joinpath("ATen/native/native_functions.yaml").open() as lines:
        present = presence.with_kernel(lines)
    assert {"add.Tensor", "add.out", "mm", "_fused_adamw_", "embedding_dense_backward", "topk"} <= present
    assert not {"mode", "put_", "_ctc_loss", "heaviside", "_linalg_svd"} & present
    assert len(present) == 890


def test_a_torch_without_data_is_refused_by_name() -> None:
    """Rules of one release are not guessed for another."""
    with pytest.raises(SimulatorUnavailable, match=r"found: +torch 2\.12\n"):
        tables.for_torch("2.12.1")


@pytest.mark.parametrize("release", records.releases())
def test_a_rule_names_an_operator_once(release: str) -> None:
    """What is listed twice is listed in another place too, and only one of them is kept right."""
    for rule in tables.for_torch(release).refusals:
        assert len(set(rule.operators)) == len(rule.operators), rule.name


def test_a_torch_without_the_kernel_in_python_is_taken_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The torch that computes may be a later one, where there is nothing to take away."""
    monkeypatch.delattr(torch._refs.linalg, "mps_lib")
    native = mock.Mock()
    load(native, torch, "2.14.1")
    native.load_rules.assert_called_once()


def test_lu_solve_into_a_tensor_without_elements() -> None:
    """torch 2.13's kernel for mps, in torch/_refs/linalg/__init__.py, leaves it so; later ones make it large enough."""
    factors, pivots = torch.linalg.lu_factor(torch.tensor([[2.0, 1.0], [1.0, 3.0]], device="mps"))
    right = torch.tensor([[5.0], [10.0]], device="mps")
    out = torch.empty(0, device="mps")
    torch.linalg.lu_solve(factors, pivots, right, out=out)
    assert out.shape == ((0,) if TORCH == "2.13" else (2, 1))
    assert torch.allclose(torch.linalg.lu_solve(factors, pivots, right).cpu(), torch.tensor([[1.0], [3.0]]))
