"""The test process's side: starts the child when first asked, sends calls, gives back answers."""

from __future__ import annotations

import atexit
import io
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import torch

from tests.process import ROOT

TRITON = Path(sys.prefix) / "oracle"


class OracleError(AssertionError):
    """The case raised, or the child process ended; the text holds its traceback."""


class Oracle:
    """A child process that runs cases on upstream's kernel files; see `tests.oracle`."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    def call(self, case: str, *args: Any, **kwargs: Any) -> Any:
        """What the function ``"file:name"`` in ``tests/oracle/cases`` returns.

        Raises OracleError with the child's traceback if the case raises.
        """
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            send(process.stdin, (case, args, kwargs))
            kind, answer = receive(process.stdout)
        except (BrokenPipeError, EOFError):
            self._process = None
            raise OracleError(f"the {self.mode} oracle ended during {case}:\n{self._log_tail()}") from None
        if kind == "error":
            raise OracleError(f"{case} in the {self.mode} oracle:\n{answer}")
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            if not (TRITON / "triton" / "__init__.py").is_file():
                raise OracleError(
                    f"no Triton in {TRITON}; install it beside the environment, not into it:\n"
                    f"    {sys.executable} -m pip install --no-deps --target {TRITON} triton==3.9.0"
                )
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.oracle.worker", self.mode],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd=ROOT,
                env=_environment(self.mode),
            )
            atexit.register(self.stop)
        return self._process

    def stop(self) -> None:
        """Ends the child; the next call starts another one."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(timeout=30)
        self._process = None

    def _log_tail(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-4000:]


def _environment(mode: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("UNSLOTH_", "TRITON_", "PYTHONPATH"))}
    return kept | {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(TRITON))),
        "TRITON_INTERPRET": "1" if mode == "interpreted" else "0",
        "UNSLOTH_ALLOW_CPU": "1",
        "UNSLOTH_FORCE_GPU_PATH": "1",
        "OMP_NUM_THREADS": "1",
    }


def send(stream: IO[bytes], message: Any) -> None:
    """Writes one message; tensors keep their strides, aliasing and ``requires_grad``."""
    buffer = io.BytesIO()
    torch.save(message, buffer)
    data = buffer.getvalue()
    stream.write(struct.pack("<Q", len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Reads one message. Raises EOFError at the end of the stream."""
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    (length,) = struct.unpack("<Q", header)
    return torch.load(io.BytesIO(stream.read(length)), weights_only=False)
