"""A pytest plugin: what Liger-Kernel's tests ask for by the names of other devices, answered for mps."""

from __future__ import annotations

import importlib

import pytest


def pytest_sessionstart(session: pytest.Session) -> None:
    """The device on which the tests make their tensors; the package itself asks for it seldom."""
    setattr(importlib.import_module("liger_kernel.utils"), "infer_device", lambda: "mps")  # noqa: B010


def pytest_collection(session: pytest.Session) -> None:
    """Whether bfloat16 is tested: their own answer is yes for CUDA, XPU and NPU only."""
    setattr(importlib.import_module("test.utils"), "supports_bfloat16", lambda: True)  # noqa: B010
