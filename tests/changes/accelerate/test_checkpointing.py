"""``Accelerator.load_state`` gives the generators back, that of mps included."""

from __future__ import annotations

import json
from pathlib import Path

from tests.process import run_python

SCRIPT = """
    import json, pathlib, sys
    from patcher import patch_for_mac
    handle = patch_for_mac(simulate="M1 8GB")
    import torch
    from accelerate import Accelerator

    accelerator = Accelerator()
    accelerator.prepare(torch.nn.Linear(2, 2))
    accelerator.save_state(sys.argv[1])
    first = [torch.rand(3, device=device).tolist() for device in (accelerator.device, "cpu")]
    accelerator.load_state(sys.argv[1])
    again = [torch.rand(3, device=device).tolist() for device in ("cuda", "cpu")]
    saved = sorted(path.name for path in pathlib.Path(sys.argv[1]).glob("random_states*"))
    handle.undo()
    from accelerate import accelerator
    undone = accelerator.load_accelerator_state.__module__
    print(json.dumps([first, again, saved, undone]))
"""


def test_load_state_restores_the_generators(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("\n".join(line[4:] for line in SCRIPT.splitlines()))
    first, again, saved, undone = json.loads(run_python(script, tmp_path / "state").stdout.strip().splitlines()[-1])
    assert first == again
    assert saved == ["random_states_0.pkl", "random_states_mps_0.pt"]
    assert undone == "accelerate.checkpointing"
