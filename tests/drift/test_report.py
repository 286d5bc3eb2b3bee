"""What the verdict and the lines say of answers that are made up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from packaging.version import Version

from patcher.drift.archives import Release
from patcher.drift.compare import Answer, Status
from patcher.drift.report import Finding, as_data, lines, row, unread
from tests.drift.fakes import patch, substitute

RELEASE = Release("unsloth", Version("2026.11.1"), None, (), {})
NEEDED = patch("unsloth.kernels.rms_layernorm:_rms_forward", "(X, W)", needed_for="every model")
OPTIONAL = patch("unsloth.kernels.swiglu:swiglu_fg_kernel", "(e, g)")
MODULE = substitute("unsloth.device_type", "DEVICE_TYPE", needed_for="Unsloth to see mps")


def finding(*answers: tuple[object, Status, str]) -> Finding:
    made = tuple(Answer(change, status, found) for change, status, found in answers)  # type: ignore[arg-type]
    return Finding((RELEASE,), made, "no network")


@pytest.mark.parametrize(
    ("statuses", "verdict", "fitting"),
    [
        ([Status.FITS, Status.FITS, Status.FITS], "trains as reviewed", "3 of 3"),
        ([Status.FITS, Status.SUPPLIED, Status.FITS], "trains as reviewed", "3 of 3"),
        ([Status.FITS, Status.SIGNATURE, Status.FITS], "trains without 1 optional change", "2 of 3"),
        ([Status.NAME, Status.MODULE, Status.FITS], "refused: _rms_forward", "1 of 3"),
        ([Status.UNCLEAR, Status.FITS, Status.CONSTANT], "refused: _rms_forward, module unsloth.device_type", "1 of 3"),
    ],
)
def test_the_verdict(statuses: Sequence[Status], verdict: str, fitting: str) -> None:
    """What training needs refuses a release; what cannot be told does not fit."""
    changes = (NEEDED, OPTIONAL, MODULE)
    found = finding(*((change, status, "") for change, status in zip(changes, statuses, strict=True)))
    assert (found.verdict, found.fitting, found.trains) == (verdict, fitting, not verdict.startswith("refused"))
    data = as_data(found)
    assert data["trains"] is found.trains and data["date"] is None
    missing = len(data["required_missing"]), len(data["optional_missing"])
    assert row(found) == f"| 2026.11.1 | unknown |  | {fitting} | {missing[0]} | {missing[1]} | {verdict} |"


def test_the_lines() -> None:
    """What training needs comes first, with both parameter lists; what fits is said where it does so in one branch."""
    shown = list(
        lines(finding((OPTIONAL, Status.FITS, "(e)"), (MODULE, Status.FITS, ""), (NEEDED, Status.SIGNATURE, "(X)")))
    )
    assert shown == [
        "unsloth 2026.11.1: refused: _rms_forward",
        "2 of 3 changes fit",
        "  another signature: unsloth.kernels.rms_layernorm:_rms_forward (required)",
        "      expected:   (X, W)",
        "      found:      (X)",
        "      needed for: every model",
        "      file:       patcher/changes/unsloth/rms_layernorm.py",
        "      do:         read what the new parameters mean, then change `expects` and the replacement",
        "  fits: unsloth.kernels.swiglu:swiglu_fg_kernel (optional)",
        "      found:      (e) under another condition",
        "      file:       patcher/changes/unsloth/swiglu.py",
        "Triton kernels were not compared: no network",
    ]


def test_a_release_that_could_not_be_read() -> None:
    """Its line has the reason alone."""
    assert unread("1", "headline\n  target:    a\n  found:     b: c\n  do:        d").endswith("| not read: b: c |")
    assert unread("1", "headline").endswith("| not read: headline |")
