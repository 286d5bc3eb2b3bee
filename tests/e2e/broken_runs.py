"""What a Trainer does on a full disk, with damaged checkpoints and with losses that are no numbers. Run by the tests:

LD_PRELOAD=interpose.so python -m tests.e2e.broken_runs FOLDER OUT.json

Each scenario runs in a fresh copy of this process. OUT: for each its error and what was left.
"""

from tests.e2e.kills import INTERPOSER, KILLED_SAVE, SAVE_STEPS, STEPS, digest, train, trainer  # isort: skip

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainerCallback

from patcher.checkpoints import inspection
from tests.e2e import forks
from tests.interposer import FULL


class AtStep(TrainerCallback):
    """Does something when a step has ended, before it is saved."""

    def __init__(self, step: int, act: Callable[[Any], None]) -> None:
        self.step, self.act = step, act

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == self.step:
            self.act(model)


def error_of(run: Callable[[], object]) -> tuple[str, str]:
    """The type and the text of what ``run`` raises."""
    try:
        run()
    except Exception as error:  # noqa: BLE001 - it is the result
        return type(error).__name__, str(error)
    return "none", ""


def state_of(out: Path) -> dict[str, Any]:
    """The names in a run's folder, and which of the checkpoints are complete."""
    names = sorted(path.name for path in out.iterdir())
    complete = [name for name in names if (out / name).is_dir() and not inspection.inspect(out / name).problems]
    return {"names": names, "complete": complete}


def disk_fills(out: Path, fill: Callable[[Any], None], report: Any) -> None:
    """Trains until the save at step 6, before which the disk gets full; then with space again, to the end."""
    run = trainer(out)
    run.add_callback(AtStep(KILLED_SAVE, fill))
    error = error_of(run.train)
    INTERPOSER.disarm()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    report({"error": error, **state_of(out)})


def by_operation(number: int, model: Any) -> None:
    """ENOSPC from the n-th file operation of the save on."""
    INTERPOSER.arm(FULL, number)


def by_limit(model: Any) -> None:
    """No file may be larger than 4 KiB: the kernel answers EFBIG in the middle of the weights."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


def by_filler(out: Path, model: Any) -> None:
    """The rest of the file system, but 16 KiB, is taken by a file."""
    free = shutil.disk_usage(out).free - 16 * 1024
    (out.parent / "filler").write_bytes(b"x" * free)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of 1 MiB in memory, where this user may mount one; else None."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    there = shutil.which("mount") is not None
    mounted = there and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def full_disks(folder: Path) -> dict[str, Any]:
    """Each way in which a disk can be full; after each the run is resumed with space."""
    results: dict[str, Any] = {}
    with small_disk(folder / "disk") as disk:
        ways: dict[str, tuple[Path, Callable[[Any], None]]] = {"limit": (folder / "limit", by_limit)}
        if disk is not None:
            ways["tmpfs"] = (disk / "run", partial(by_filler, disk / "run"))
        for number in (2, 6, 12, 25, 45, 58, 62):
            ways[f"operation {number}"] = (folder / f"full-{number}", partial(by_operation, number))
        for name, (out, fill) in ways.items():
            results[name] = forks.result(partial(disk_fills, out, fill))
            (out.parent / "filler").unlink(missing_ok=True)
            results[name]["resumed"] = forks.result(partial(train, out))
    return results


class Bomb:
    """Executed by a pickle that is read without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def damaged(folder: Path, whole: Path, report: Any) -> None:
    """Resuming from a checkpoint with a file of which something is wrong: by its path, and as the newest one."""
    results = {}
    for name, (file, damage) in damages(folder).items():
        out = folder / name
        shutil.copytree(whole, out)
        newest = out / f"checkpoint-{STEPS}"
        shutil.copytree(newest, out / "checkpoint-4")
        damage(newest / file)
        if "old form" in name:
            (newest / "checkpoint_manifest.json").unlink()
        by_path = error_of(lambda newest=newest, out=out: trainer(out).train(resume_from_checkpoint=str(newest)))
        run = trainer(out)
        newest_one = error_of(partial(run.train, resume_from_checkpoint=True))
        results[name] = {"by path": by_path, "newest": newest_one, "step": run.state.global_step}
    report({**results, "exploded": (folder / "exploded").exists()})


def flip(path: Path) -> None:
    """One bit in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damages(folder: Path) -> dict[str, tuple[str, Callable[[Path], None]]]:
    """By name: the file, and what happens to it."""
    bomb = Bomb(folder / "exploded")
    return {
        "truncated": ("model.safetensors", lambda path: os.truncate(path, path.stat().st_size // 2)),
        "flipped": ("optimizer.pt", flip),
        "missing": ("trainer_state.json", Path.unlink),
        "foreign": ("trainer_state.json", lambda path: path.write_text("[1, 2]")),
        "bomb": ("rng_state.pth", lambda path: torch.save({"cpu": bomb}, path)),
        "bomb, old form": ("optimizer.pt", lambda path: torch.save({"state": bomb}, path)),
        "legacy bomb, old form": ("optimizer.pt", lambda path: path.write_bytes(pickle.dumps(bomb, protocol=2))),
    }


def not_a_number(out: Path, report: Any) -> None:
    """Weights that become NaN after step 3, a module that makes infinities, and rows without a label."""
    results: dict[str, Any] = {}
    for name, switch in {"weight": "1", "off": "0", "upstream": "0"}.items():
        os.environ["PATCHER_STOP_AT_NAN"] = switch
        run = trainer(out / name)
        if name == "upstream":
            run.args.debug = ["underflow_overflow"]
        run.add_callback(AtStep(3, poison))
        results[name] = {"error": error_of(run.train), "steps": run.state.global_step}
    os.environ["PATCHER_STOP_AT_NAN"] = "1"
    run = trainer(out / "module")
    run.model.model.layers[0].mlp.register_forward_hook(lambda module, args, output: output / 0)
    results["module"] = {"error": error_of(run.train), "steps": run.state.global_step}
    run = trainer(out / "labels")
    run.train_dataset = [{**row, "labels": [-100] * 8} for row in run.train_dataset]
    results["labels"] = {"error": error_of(run.train), "steps": run.state.global_step}
    run = trainer(out / "fine")
    run.train()
    results["fine"] = {"digest": digest(run)}
    report(results)


def poison(model: Any) -> None:
    """One weight is NaN from now on."""
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")


class Hub:
    """Takes uploads and remembers what was there to be read."""

    def __init__(self) -> None:
        self.uploads: list[tuple[str, bool]] = []

    def upload_folder(self, *, folder_path: str, **_: Any) -> Future[None]:
        folder = Path(folder_path)
        self.uploads.append((folder.name, (folder / "checkpoint_manifest.json").exists()))
        done: Future[None] = Future()
        done.set_result(None)
        return done


def best_and_uploaded(out: Path, report: Any) -> None:
    """The best checkpoint is that of step 2: the loss grows from there on. Each checkpoint is uploaded."""
    hub = Hub()
    transformers.trainer.hf_api = lambda: hub
    options = {
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "eval_steps": SAVE_STEPS,
        "save_total_limit": 2,
    }
    run = trainer(out, **options, hub_strategy="all_checkpoints")
    run.args.push_to_hub, run.hub_model_id, run.push_in_progress = True, "me/mine", None
    losses = iter(range(1, 99))
    evaluate = run.evaluate
    run.evaluate = lambda *args, **named: {**evaluate(*args, **named), "eval_loss": float(next(losses))}
    run.train()
    states = {
        path.name: json.loads((path / "trainer_state.json").read_text())["best_model_checkpoint"]
        for path in out.glob("checkpoint-*")
    }
    report({"best": run.state.best_model_checkpoint, "states": states, "uploads": hub.uploads, **state_of(out)})


def main(folder: Path, out: Path) -> None:
    whole = folder / "whole"
    expected = forks.result(partial(train, whole))
    results = {
        "expected": expected,
        "full": full_disks(folder),
        "damaged": forks.result(partial(damaged, folder, whole)),
        "nan": forks.result(partial(not_a_number, folder)),
        "best": forks.result(partial(best_and_uploaded, folder / "best")),
    }
    out.write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
