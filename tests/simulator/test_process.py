"""What needs a process of its own: leaving it, and starting late."""

from __future__ import annotations

import subprocess
import textwrap

import pytest

from tests.process import run_python

pytestmark = pytest.mark.slow


def run(code: str) -> subprocess.CompletedProcess[str]:
    return run_python("-X", "faulthandler", "-c", textwrap.dedent(code), timeout=120, check=False)


def test_leaving_with_live_tensors_is_clean() -> None:
    """Tensors, generators, events, streams, a backward thread and views alive at exit: code 0, nothing on stderr."""
    done = run("""
        import builtins, sys, threading, torch
        from patcher.simulator import start
        start()
        layer = torch.nn.Linear(4, 4).to("mps")
        layer(torch.ones(2, 4, device="mps")).sum().backward()
        class Late:
            def __init__(self): self.x = torch.ones(3, device="mps")
            def __del__(self): self.x = self.x + 1
        kept = builtins.kept = [Late(), torch.mps.Event(), torch.Stream(device="mps"), torch.Event("mps"), layer,
                                torch.Generator(device="mps"), torch.ones(2).pin_memory(), layer.weight.t()]
        kept.append(kept)
        threading.Thread(target=lambda: torch.ones(64, device="mps").sum().item()).start()
        sys.modules["kept"] = kept
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_starting_after_torch_was_asked_about_mps() -> None:
    """torch remembers that there was no mps; the device is put in place all the same, gradients included."""
    done = run("""
        import torch
        assert not torch.backends.mps.is_available() and torch.accelerator.current_accelerator() is None
        from patcher.simulator import start
        start()
        assert torch.backends.mps.is_available() and torch.accelerator.current_accelerator().type == "mps"
        x = torch.ones(2, device="mps", requires_grad=True)
        (x * 2).sum().backward()
        assert x.grad.tolist() == [2.0, 2.0]
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_starting_after_a_backward_is_refused() -> None:
    """torch has made its backward threads by then; the message says what to do."""
    done = run("""
        import torch
        torch.ones(1, requires_grad=True).sum().backward()
        from patcher.errors import SimulatorUnavailable
        from patcher.simulator import start
        try:
            start()
        except SimulatorUnavailable as error:
            print(error)
    """)
    assert "a backward() ran before" in done.stdout and "at the top of the script" in done.stdout


def test_a_library_of_another_build_is_refused(tmp_path: object) -> None:
    """A file in the cache that does not load is named, with the command that removes it."""
    done = run(f"""
        import os, pathlib, torch
        os.environ["PATCHER_CACHE"] = {str(tmp_path)!r}
        from patcher.errors import SimulatorUnavailable
        from patcher import environment
        from patcher.simulator import build, start
        folder = environment.cache_folder() / "simulated-mps" / build.key(torch)
        folder.mkdir(parents=True)
        (folder / f"{{build.MODULE}}{{build._suffix()}}").write_text("broken")
        try:
            start()
        except SimulatorUnavailable as error:
            print(error)
    """)
    assert "was built, but does not load" in done.stdout and "rm -r" in done.stdout


@pytest.mark.parametrize("ratio", ["0.01"])
def test_running_out_of_memory_is_survivable(ratio: str) -> None:
    """With a small watermark a script gets the Mac's error and can go on."""
    done = run(f"""
        import os, torch
        os.environ["PYTORCH_MPS_HIGH_WATERMARK_RATIO"] = "{ratio}"
        os.environ["PYTORCH_MPS_LOW_WATERMARK_RATIO"] = "0"
        from patcher.simulator import start
        start("M1 8GB")
        try:
            torch.ones(64, 2**20, device="mps")
        except RuntimeError as error:
            print(error)
        print(torch.ones(2, device="mps").sum().item())
    """)
    assert "max allowed: 54.61 MiB). Tried to allocate 256.00 MiB" in done.stdout
    assert done.stdout.endswith("2.0\n")


@pytest.mark.slow
def test_a_forked_child_releases_what_it_inherits() -> None:
    """Also when another thread was allocating at the moment of the fork, and held the account of memory."""
    done = run("""
        import os, threading, torch
        from patcher.simulator import start
        start()
        held, go_on = torch.ones(8, device="mps"), True

        def allocate():
            while go_on:
                torch.empty(64, device="mps")

        threads = [threading.Thread(target=allocate) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(40):
            child = os.fork()
            if child == 0:
                del held
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        go_on = False
        for thread in threads:
            thread.join()
        print("done")
    """)
    assert done.stdout == "done\n"
