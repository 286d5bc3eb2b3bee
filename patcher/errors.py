"""Every exception of the project, and the form of its message.

None derives from ImportError: optional-import guards upstream would swallow it. A message names the target, the
installed version, what was expected and found, what state was left, and the next command to run.
"""

from __future__ import annotations

from collections.abc import Sequence


def compose(
    headline: str,
    *,
    target: str | None = None,
    installed: str | None = None,
    expected: str | None = None,
    found: str | None = None,
    left: str | None = None,
    run: str | None = None,
) -> str:
    """One message from its parts, each on a line of its own; parts that are None are left out."""
    parts = {
        "target": target,
        "installed": installed,
        "expected": expected,
        "found": found,
        "state": left,
        "do": run,
    }
    return "\n".join([headline, *(f"  {name + ':':<10} {text}" for name, text in parts.items() if text)])


class PatcherError(RuntimeError):
    """Base of all errors of this project."""


class RefusedChange(PatcherError):
    """A change could not be put in place: the installed library does not have the expected shape."""


class GateClosed(PatcherError):
    """A package that trains has been imported, but changes that training needs on mps are not in place.

    Attributes:
        targets: the names of these changes, as the report and ``without=`` have them.
    """

    def __init__(self, gate: str, refused: Sequence[tuple[str, str]]) -> None:
        lines = [f"{len(refused)} change(s) that training on mps needs could not be put in place:"]
        lines += [f"  {target}: {detail}" for target, detail in refused]
        lines += [
            f"  state:     {gate} is not imported; the other changes stay until .undo()",
            "  do:        install the reviewed versions (python -m patcher report), or go on at your own risk with",
            "             patch_for_mac(without=...) these changes, or strict=False",
        ]
        super().__init__("\n".join(lines))
        self.targets = tuple(target for target, _ in refused)


class TooLate(PatcherError):
    """patch_for_mac() came after a module that had already taken what it changes."""


class UndoConflict(PatcherError):
    """undo() found another value than the one that was put in place: somebody patched over it."""


class NoMps(PatcherError):
    """mps was asked for, and this machine has no mps device, real or simulated."""


class InvalidSwitch(PatcherError):
    """An argument or an environment switch has a value that is not accepted."""


class IndexBeyondTable(PatcherError, IndexError):
    """An index lies beyond what it is looked up in, where mps would say nothing; an IndexError, as on the CPU."""


class NotOnMac(PatcherError):
    """The script asks for something that cannot work on a Mac; the message names the alternative."""


class Float64OnMps(PatcherError, TypeError):
    """Numbers in float64 lose their meaning in the float32 of mps; the message names the tensor. torch: TypeError."""


class KernelNotSupported(PatcherError):
    """A Triton kernel cannot run, or not with these arguments; the message names kernel, file, line and construct."""


class LaunchRefused(PatcherError, TypeError):
    """A Triton kernel was launched with arguments or a grid that do not fit it. In Triton: TypeError."""


class KernelFailed(PatcherError):
    """A running Triton kernel left its tensors, or its own assertion does not hold; the message names its line."""


class MissingLibrary(PatcherError):
    """A part of a library was used that only the real library has, and it is not installed."""


class SimulatorUnavailable(PatcherError):
    """The simulated mps device cannot be built or started here; the message says what is missing and how to get it."""


class CalibrationUnusable(PatcherError):
    """The file of a calibration cannot be read or written, or is of another Mac; the message says what is wrong."""


class MeterRunning(PatcherError):
    """Two meters at once, or one that was asked before it ran."""


class CheckpointNotSaved(PatcherError):
    """A checkpoint could not be written; the message says what is left and whether the disk is full."""


class CheckpointDamaged(PatcherError):
    """A checkpoint cannot be used; the message names its files that are missing, changed, truncated or unsafe."""


class LossNotFinite(PatcherError):
    """The loss is NaN or infinite; the message names the step and the first module whose output was."""


class ModelDoesNotFit(PatcherError):
    """A model's weights are more than torch may take on this Mac's GPU; the message says what would fit."""


class ExportFailed(PatcherError):
    """A model could not be exported; the message says which part, and what was left."""


class RowEmpty(PatcherError):
    """A batch holds a row without tokens; the message names the rows of the data set."""


class ReleaseUnreadable(PatcherError):
    """A release of a library cannot be fetched or read; the message says why and what was left."""
