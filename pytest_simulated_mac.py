"""A pytest plugin: any project's tests on the simulated Mac, with ``pytest --simulated-mac``.

Without the option it is two options, a marker and a fixture that skips: it imports neither torch nor `patcher`, since
pytest loads it in every project of the environment. What it does is in `patcher.simulator.pytest_plugin`.
"""

from __future__ import annotations

from typing import Any

import pytest

NAME = "simulated-mac"
NEEDED = "needs the simulated Mac: pytest --simulated-mac"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, and the same for the configuration file."""
    group = parser.getgroup("simulated Mac")
    group.addoption(
        "--simulated-mac",
        nargs="?",
        const="1",
        metavar="MAC",
        help="run on a simulated Mac: --simulated-mac='M1 8GB'; without a name an M3 Max with 36 GB",
    )
    group.addoption("--simulated-mac-patch", action="store_true", help="and call patch_for_mac() first")
    group.addoption("--simulated-mac-faults", default="", metavar="A,B", help="and switch these faults on")
    group.addoption(
        "--simulated-mac-report",
        nargs="?",
        const=10,
        default=0,
        type=int,
        metavar="N",
        help="show the N tests (10) that held most memory, and what a Mac refused",
    )
    parser.addini("simulated_mac", "the Mac to simulate, as --simulated-mac", default="")
    parser.addini("simulated_mac_patch", "as --simulated-mac-patch", type="bool", default=False)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Starts the device before any conftest.py can import torch and run a backward."""
    options = early_config.known_args_namespace
    mac = options.simulated_mac or early_config.getini("simulated_mac")
    if mac:
        from patcher.simulator.pytest_plugin import begin

        patch = options.simulated_mac_patch or early_config.getini("simulated_mac_patch")
        plugin = begin(mac, patch=patch, faults=options.simulated_mac_faults, most=options.simulated_mac_report)
        early_config.pluginmanager.register(plugin, NAME)


def pytest_configure(config: pytest.Config) -> None:
    """Makes the marker known."""
    config.addinivalue_line(
        "markers",
        "simulated_mac(mac=None, faults=()): run the test as on this Mac, with these faults; skipped where no Mac is "
        "simulated",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what is marked where no Mac is simulated."""
    if not config.pluginmanager.has_plugin(NAME):
        for item in items:
            if item.get_closest_marker("simulated_mac"):
                item.add_marker(pytest.mark.skip(reason=NEEDED))


@pytest.fixture
def simulated_mac(pytestconfig: pytest.Config) -> Any:
    """The simulated device (`patcher.simulator.Device`); the test is skipped where there is none."""
    plugin = pytestconfig.pluginmanager.get_plugin(NAME)
    if plugin is None:
        pytest.skip(NEEDED)
    return plugin.device
