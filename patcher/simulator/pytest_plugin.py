"""What ``pytest --simulated-mac`` does: `pytest_simulated_mac` has the options and loads this where one is given."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from pathlib import Path

import pytest

from patcher import patch_for_mac
from patcher.errors import PatcherError
from patcher.macs.mac import MacProfile, parse
from patcher.simulator.device import Device

PEAK = "simulated_mac_peak_bytes"
REFUSED = "simulated_mac_refused"


def begin(mac: str, *, patch: bool, faults: str, most: int) -> Plugin:
    """Starts the device in this process.

    Args:
        mac: a text for `patcher.macs.mac.parse`.
        patch: call `patch_for_mac` first.
        faults: names of faults with commas between them.
        most: how many tests the summary shows; 0 means no summary.

    Raises:
        pytest.UsageError: no such Mac, no such fault, or no Mac can be simulated here.
    """
    if Path(mac).exists():
        raise pytest.UsageError(f"--simulated-mac has taken {mac!r} for the Mac: write --simulated-mac=1 {mac}")
    try:
        profile = parse(mac)
        if patch:
            patch_for_mac(simulate=profile.name)
        import torch  # noqa: F401 - the device is one of torch's

        from patcher.simulator import start

        device = start(profile)
        if faults:
            from patcher.simulator.faults import switch_on

            switch_on(tuple(name.strip() for name in faults.split(",")))
    except PatcherError as error:
        raise pytest.UsageError(str(error)) from error
    return Plugin(device, profile, patched=patch, faults=faults, most=most)


class Plugin:
    """The device of a test run, and what it tells about the tests.

    Attributes:
        device: the simulated device.
    """

    def __init__(self, device: Device, mac: MacProfile, *, patched: bool, faults: str, most: int) -> None:
        from patcher.simulator.places import Places

        self.device = device
        self._mac = mac
        self._patched = patched
        self._faults = faults
        self._most = most
        self._peaks: list[tuple[int, str]] = []
        self._refused: dict[tuple[str, str, str], int] = {}
        self._places = Places()
        self._undo = ExitStack()
        if most:
            self._places.attach(device.native)

    def pytest_report_header(self) -> str:
        """The Mac, among pytest's first lines."""
        how = "patched" if self._patched else "nothing patched"
        return f"simulated Mac: {self._mac.name}, {how}" + (f", faults: {self._faults}" if self._faults else "")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Becomes the Mac that a marker names, and lets the peak start again."""
        marker = item.get_closest_marker("simulated_mac")
        if marker is not None:
            self._become(*marker.args, **marker.kwargs)
        self.device.reset_peak()
        self._places.take()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self) -> None:
        """Becomes the chosen Mac again."""
        self._undo.close()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, object, None]:
        """Puts the peak and the refusals into the test's properties, which reach JUnit's XML and pytest-xdist."""
        if call.when == "teardown":
            item.user_properties.append((PEAK, self.device.memory().peak))
            seen = [[s.kind, s.name, s.place, s.count] for s in self._places.take()]
            if seen:
                item.user_properties.append((REFUSED, json.dumps(seen)))
        yield

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collects them, in the process that prints the summary."""
        if report.when == "teardown":
            for name, value in report.user_properties:
                if name == PEAK:
                    self._peaks.append((int(str(value)), report.nodeid))
                elif name == REFUSED:
                    self._add(json.loads(str(value)))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The tests that held most memory, and what a Mac refused."""
        if not self._most:
            return
        from patcher.sizes import size

        terminalreporter.section(f"simulated Mac: {self._mac.name}")
        limit = self.device.memory().limit
        terminalreporter.line(f"peak memory, of {size(limit)} allowed:" if limit else "peak memory:")
        for peak, test in sorted(self._peaks, reverse=True)[: self._most]:
            terminalreporter.line(f"{size(peak):>12}  {test}")
        for (kind, name, place), count in sorted(self._refused.items()):
            terminalreporter.line(f"{kind:>12}  {name} at {place}, {count} x")

    def _become(self, mac: str | None = None, faults: Iterable[str] = ()) -> None:
        """Another Mac and more faults until the test's end. Raises InvalidSwitch for what there is not."""
        if mac is not None:
            self.device.become(parse(mac, self.device.torch))
            self._undo.callback(self.device.become, self._mac)
        names = tuple(faults)
        if names:
            from patcher.simulator.faults import inject

            self._undo.enter_context(inject(*names))

    def _add(self, seen: list[tuple[str, str, str, int]]) -> None:
        for kind, name, place, count in seen:
            key = (kind, name, place)
            self._refused[key] = self._refused.get(key, 0) + count
