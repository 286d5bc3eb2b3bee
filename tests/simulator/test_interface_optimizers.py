"""Every optimizer of torch, on the simulated device and on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adadelta": {"rho": 0.8, "weight_decay": 0.01},
    "Adafactor": {"lr": 0.05},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.01},
    "Adam": {"lr": 0.05, "amsgrad": True},
    "AdamW": {"lr": 0.05, "weight_decay": 0.1},
    "Adamax": {"lr": 0.05},
    "ASGD": {"lr": 0.05, "weight_decay": 0.1},
    "LBFGS": {"lr": 0.5, "max_iter": 4, "line_search_fn": "strong_wolfe"},
    "Muon": {"lr": 0.05},
    "NAdam": {"lr": 0.05, "decoupled_weight_decay": True},
    "RAdam": {"lr": 0.05},
    "RMSprop": {"lr": 0.01, "centered": True, "momentum": 0.5},
    "Rprop": {"lr": 0.01},
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
}
NOT_FOR_DENSE = {"SparseAdam"}
WITHOUT_FOREACH = {"LBFGS", "Muon"}


def steps(device: str, name: str, count: int = 5, **options: Any) -> tuple[list[Tensor], dict[str, Any]]:
    """Weights and optimizer state after some steps of a small regression."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4, bias=name != "Muon"), nn.Tanh(), nn.Linear(4, 3, bias=name != "Muon"))
    x, y = torch.randn(8, 5), torch.randn(8, 3)
    model, x, y = model.to(device), x.to(device), y.to(device)
    optimizer = getattr(torch.optim, name)(model.parameters(), **{**OPTIMIZERS[name], **options})

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    for _ in range(count):
        optimizer.step(closure)
    return [p.detach() for p in model.parameters()], optimizer.state_dict()


def same(mps: Any, cpu: Any) -> bool:
    """Nested results are equal to the last bit, and what belongs on the device is there."""
    if isinstance(mps, Tensor):
        return torch.equal(mps.cpu(), cpu) and (mps.device.type == "mps" or mps.dim() == 0)
    if isinstance(mps, dict):
        return mps.keys() == cpu.keys() and all(same(mps[key], cpu[key]) for key in mps)
    if isinstance(mps, list | tuple):
        return len(mps) == len(cpu) and all(same(a, b) for a, b in zip(mps, cpu, strict=True))
    return bool(mps == cpu)


def test_the_list_is_complete() -> None:
    """Every optimizer class that torch has is compared."""
    classes = {name for name, value in vars(torch.optim).items() if isinstance(value, type)}
    assert classes - {"Optimizer"} - NOT_FOR_DENSE == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_and_state_are_those_of_the_cpu(name: str) -> None:
    """Five steps, tensor by tensor and with foreach: weights and state equal to the last bit."""
    variants: list[dict[str, Any]] = [{}] if name in WITHOUT_FOREACH else [{}, {"foreach": True}]
    for options in variants:
        weights, state = steps("mps", name, **options)
        expected, expected_state = steps("cpu", name, **options)
        assert same(weights, expected), options
        assert same(state["state"], expected_state["state"]), options


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_fused_optimizers_take_mps(name: str) -> None:
    """The three with an mps kernel; closely those without fusion, exactly the CPU's fused ones."""
    fused, _ = steps("mps", name, fused=True)
    assert same(fused, steps("cpu", name, fused=True)[0])
    for a, b in zip(fused, steps("mps", name)[0], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda p: torch.optim.Adam(p, fused=True, foreach=True), "cannot be `True` together"),
        (lambda p: torch.optim.RMSprop(p, capturable=True).step(), "capturable"),
        (lambda p: torch.optim.Adam(p, capturable=True).step(), "capturable"),
    ],
    ids=["fused and foreach", "RMSprop capturable", "Adam capturable"],
)
def test_what_a_mac_refuses(make: Callable[[list[nn.Parameter]], object], error: str) -> None:
    """Options that torch allows on other accelerators only."""
    parameter = nn.Parameter(torch.ones(2, device="mps"))
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises((RuntimeError, AssertionError), match=error):
        make([parameter])


def test_foreach_is_not_chosen_by_itself() -> None:
    """On mps torch steps tensor by tensor unless told otherwise; the operators that run show it."""
    from patcher.simulator import running

    device = running()
    assert device is not None
    device.reset_operator_counts()
    steps("mps", "AdamW", count=1)
    names = set(device.operator_counts())
    assert "aten::addcdiv_" in names and not any("_foreach" in name for name in names)
    device.reset_operator_counts()
    steps("mps", "AdamW", count=1, fused=True)
    assert any("_fused_adamw_" in name for name in device.operator_counts())


def test_a_state_goes_to_the_cpu_and_back() -> None:
    """`state_dict` from mps continues on the CPU, and the other way round, as if nothing had happened."""

    def resumed(first: str, second: str) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2).to(first)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        x = torch.randn(4, 3)
        for device in (first, second):
            saved = copy.deepcopy(optimizer.state_dict())
            model = model.to(device)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
            optimizer.load_state_dict(saved)
            for _ in range(3):
                optimizer.zero_grad()
                model(x.to(device)).square().sum().backward()
                optimizer.step()
        return [p.detach().cpu() for p in model.parameters()]

    expected = resumed("cpu", "cpu")
    for way in (("mps", "cpu"), ("cpu", "mps"), ("mps", "mps")):
        assert all(torch.equal(a, b) for a, b in zip(resumed(*way), expected, strict=True)), way


def test_schedulers_clipping_and_averages() -> None:
    """Learning-rate schedules, clipping by norm and by value, weight averages: as on the CPU."""

    def run(device: str) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(4, 4).to(device)
        averaged = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=8)
        x = torch.randn(6, 4).to(device)
        norms = []
        for _ in range(6):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5, error_if_nonfinite=True))
            nn.utils.clip_grad_value_(model.parameters(), 0.1)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(model)
        return [torch.stack(norms), *(p.detach() for p in averaged.parameters())]

    assert same(run("mps"), run("cpu"))
