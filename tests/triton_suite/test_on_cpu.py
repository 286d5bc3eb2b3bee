"""What a test of Triton's gets where mps lacks a type, and what its kernels do not get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from patcher.errors import Float64OnMps
from tests.triton_suite.on_cpu import OnCpu, plainly

NO_FP8 = TypeError("Trying to convert Float8_e5m2 to the MPS backend but it does not have support for that dtype.")


class Refusing:
    """An operator that a device refuses, as it does the first time."""

    def __init__(self, error: Exception) -> None:
        self.error, self.calls = error, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == 1:
            raise self.error
        return torch.ones(1), args, kwargs


def again(error: Exception, *args: Any, **kwargs: Any) -> Any:
    """What the mode makes of it."""
    return OnCpu("meta").__torch_function__(Refusing(error), (), args, kwargs)


def test_operators_on_fp8_run_on_the_cpu_and_results_go_back() -> None:
    """Also a factory, which is told a device."""
    result, _, options = again(NO_FP8, torch.ones(2), device="mps", dtype=torch.float8_e5m2)
    assert result.device.type == "meta"
    assert options == {"device": "cpu", "dtype": torch.float8_e5m2}


def test_arrays_of_fp64_become_fp32_and_no_other_ones() -> None:
    """Numbers beyond fp32 are infinite."""
    _, (wide, whole), _ = again(Float64OnMps("no"), np.array([1.5, 1e300]), np.array([3]))
    assert wide.dtype == np.float32 and wide.tolist() == [1.5, np.inf]
    assert whole.dtype == np.int64


@pytest.mark.parametrize("error", [TypeError("another"), ValueError("no")])
def test_what_is_refused_for_another_reason_is_refused(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        again(error, torch.ones(2))


def test_a_launch_gets_none_of_it() -> None:
    """Its operators do not come to the mode."""
    seen = []

    class Seeing(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(function)
            return function(*args, **(kwargs or {}))

    with Seeing():
        plainly(lambda: torch.ones(1) + 1)()
        assert not seen
        torch.ones(1)
    assert seen
