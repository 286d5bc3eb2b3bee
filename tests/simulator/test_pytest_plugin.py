"""``pytest --simulated-mac``: other projects' tests on the simulated Mac, and nothing at all without the option."""

from __future__ import annotations

import os
import re

import pytest

from patcher.environment import cache_folder
from tests.process import ROOT, clean_environment, run_python

pytest_plugins = ["pytester"]
PLUGIN = "pytest_simulated_mac"
CACHE = str(cache_folder())  # where the device has been built: pytester gives its projects another home


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project whose pytest finds this tree."""
    for name in os.environ:
        if name not in clean_environment():
            monkeypatch.delenv(name)
    for name, value in clean_environment(PYTHONPATH=str(ROOT), PATCHER_CACHE=CACHE).items():
        monkeypatch.setenv(name, value)
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", PLUGIN, "-p", "no:cacheprovider", *arguments)


WITHOUT = """
    import sys, pytest

    def test_nothing_is_loaded():
        assert "torch" not in sys.modules and "patcher" not in sys.modules

    @pytest.mark.simulated_mac("M1 8GB")
    def test_marked(): raise AssertionError

    def test_fixture(simulated_mac): raise AssertionError
"""


def test_without_the_option_nothing_is_loaded_and_tests_for_it_are_skipped(project: pytest.Pytester) -> None:
    """Neither torch nor patcher is imported; the marker is known, and what needs the device says what it needs."""
    project.makepyfile(WITHOUT)
    result = run(project, "--strict-markers", "-rs")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*needs the simulated Mac: pytest --simulated-mac"] * 2)


def test_it_costs_a_few_milliseconds() -> None:
    """Every pytest of the environment imports it: less than 5 ms on top of pytest, best of three, in CPU time."""
    code = "import pytest, time; t = time.process_time(); import pytest_simulated_mac; print(time.process_time() - t)"
    times = [float(run_python("-c", code).stdout) for _ in range(3)]
    assert min(times) < 0.005, times


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--simulated-mac=M0",), "no such Mac"), (("--simulated-mac", "."), "write --simulated-mac=1 .")],
)
def test_wrong_use_is_told(project: pytest.Pytester, arguments: tuple[str, ...], said: str) -> None:
    """An unknown Mac; a path that the option has taken for one."""
    result = run(project, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str() + result.stdout.str()


WITH = """
    import pytest, torch

    HERE = torch.backends.mps.is_available()  # while modules are imported

    def test_device(simulated_mac):
        assert HERE and torch.backends.mps.get_name() == "Apple M1"
        assert simulated_mac.memory().limit > 0
        x = torch.ones(3 * 2**18, device="mps", requires_grad=True)
        x.sum().backward()

    @pytest.mark.simulated_mac("M2 Ultra 64GB")
    def test_marked():
        assert torch.backends.mps.get_name() == "Apple M2 Ultra"

    @pytest.mark.simulated_mac("M9")
    def test_marked_wrongly():
        pass

    def test_back_again():
        assert torch.backends.mps.get_name() == "Apple M1"

    def test_refused():
        for _ in range(2):
            with pytest.raises(TypeError):
                torch.ones(1, dtype=torch.float64, device="mps")

    def test_out_of_memory():
        with pytest.raises(RuntimeError, match="MPS backend out of memory"):
            [torch.empty(2**30, device="mps", dtype=torch.int8) for _ in range(12)]
"""


@pytest.mark.slow
def test_tests_run_on_the_device(project: pytest.Pytester) -> None:
    """It is there when modules are imported; markers change the Mac for a test; memory and refusals are summed up."""
    project.makepyfile(WITH)
    result = run(project, "--simulated-mac=M1 8GB", "--simulated-mac-report=2", "--junitxml=out.xml", "-rE")
    result.assert_outcomes(passed=5, errors=1)
    output = result.stdout.str()
    assert "simulated Mac: M1 8GB, nothing patched" in output
    assert "there is no such Mac to simulate" in output
    # 3 MiB, its gradient and the sum.
    assert re.search(r"\n +6 MiB +\S*::test_device|\n +6\.\d\d MiB +\S*::test_device", output), output
    assert re.search(r"\n +float64 +Double at \S+\.py:25, 2 x", output), output
    assert "simulated_mac_peak_bytes" in (project.path / "out.xml").read_text()


@pytest.mark.slow
def test_the_configuration_file_patches_and_names_the_mac(project: pytest.Pytester) -> None:
    """``simulated_mac`` and ``simulated_mac_patch``: ``"cuda"`` in a test lands on mps."""
    project.makeini("[pytest]\nsimulated_mac = M3 Max 36GB\nsimulated_mac_patch = true\n")
    project.makepyfile(
        """
        def test_cuda():
            import torch
            assert str(torch.ones(1, device="cuda").device) == "mps:0"
            assert torch.cuda.get_device_name() == "Apple M3 Max"
        """
    )
    result = run(project)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["simulated Mac: M3 Max 36GB, patched"])
