"""A script that torchrun or accelerate starts trains on mps, as the table in docs/idioms.md says."""

from __future__ import annotations

import sysconfig
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.idioms.table import ROWS
from tests.process import run_python

STARTED = [row for row in ROWS if "starts" in row]
LINE = "from patcher import patch_for_mac; patch_for_mac()\n"
SCRIPT = """
import os, sys
import torch
device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
net = torch.nn.Linear(4, 4).to(device)
optimizer = torch.optim.AdamW(net.parameters())
before = net.weight.tolist()
net(torch.ones(2, 4, device=device)).pow(2).mean().backward()
optimizer.step()
assert net.weight.tolist() != before
print("TRAINED", net.weight.device.type, os.environ.get("RANK"), os.environ.get("WORLD_SIZE"), sys.argv[1:])
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What each command's script has printed, without its first word; all commands at once."""
    folder = tmp_path_factory.mktemp("starting")
    (folder / "train.py").write_text(SCRIPT)
    (folder / "with_line.py").write_text(LINE + SCRIPT)

    def printed(row: dict[str, Any]) -> list[str]:
        command = [word.replace("BIN", sysconfig.get_path("scripts")) for word in row["starts"]]
        done = run_python(*command, cwd=folder, timeout=240, UNSLOTH_SIMULATE_MAC="M1 8GB")
        return [line.removeprefix("TRAINED ") for line in done.stdout.splitlines() if line.startswith("TRAINED ")]

    with ThreadPoolExecutor() as pool:
        return dict(zip((row["write"] for row in STARTED), pool.map(printed, STARTED), strict=True))


@pytest.mark.slow  # a launcher and its child, each of which imports torch
@pytest.mark.parametrize("row", STARTED, ids=lambda row: row["write"])
def test_a_launcher_starts_a_script_on_mps(trained: dict[str, list[str]], row: dict[str, Any]) -> None:
    assert trained[row["write"]] == [row["gives"]]
