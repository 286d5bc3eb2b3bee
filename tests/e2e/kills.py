"""Kills a training again and again and goes on with it: at every file operation of a save, and at random moments.

LD_PRELOAD=interpose.so python -m tests.e2e.kills FOLDER OUT.json [--kills 200] [--operations N] [--random N] [--seed 0]

``--kills`` kills at every file operation, and for the rest at random moments; ``--operations`` at so many of them.
Everything runs in copies of this process, which has only imported the libraries. OUT: what went wrong, and how many
kills there were.
"""

from patcher import patch_for_mac

patch_for_mac(simulate="M3 Max 36GB")

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
import random
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from tests.e2e import forks
from tests.interposer import COUNT, KILL, Interposer

INTERPOSER = Interposer()
STEPS, SAVE_STEPS, KILLED_SAVE = 9, 2, 6
"""The last save comes at step 8, so that a run that ends goes beyond it."""

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
logging.getLogger("patcher").setLevel(logging.ERROR)


class Watch(TrainerCallback):
    """Tells how far the run is; arms the interposer for one save."""

    def __init__(self, report: Any, mode: int = 0, operation: int = 0) -> None:
        self.report, self.mode, self.operation = report, mode, operation

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.report(state.global_step)
        if self.mode and state.global_step == KILLED_SAVE:
            INTERPOSER.arm(self.mode, self.operation)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.mode and state.global_step == KILLED_SAVE:
            INTERPOSER.disarm()
            self.report(INTERPOSER.operations())


def trainer(out: Path, **options: Any) -> Trainer:
    """Two layers with dropout under gradient checkpointing; each epoch has another order; one checkpoint is kept."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        attention_dropout=0.2,
    )
    rows = [[(row * 5 + column * column) % 32 for column in range(8)] for row in range(10)]
    settings: dict[str, Any] = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "gradient_checkpointing": True,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "save_steps": SAVE_STEPS,
        "save_total_limit": 1,
        "seed": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    args = TrainingArguments(str(out), **{**settings, **options})
    data: Any = [{"input_ids": row, "labels": row} for row in rows]
    return Trainer(LlamaForCausalLM(config), args, train_dataset=data, eval_dataset=data[:2])


def digest(run: Trainer) -> dict[str, Any]:
    """Everything that a run has at its end: weights, optimizer, scheduler, generator of mps; and its losses."""
    optimizer = run.optimizer.state_dict()["state"]
    tensors = [*run.model.state_dict().values(), *(t for state in optimizer.values() for t in state.values())]
    content = b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in (*tensors, torch.mps.get_rng_state()))
    losses = {entry["step"]: entry["loss"] for entry in run.state.log_history if "loss" in entry}
    return {
        "state": hashlib.sha256(content).hexdigest(),
        "scheduler": repr(run.lr_scheduler.state_dict()),
        "losses": {str(step): losses[step] for step in sorted(losses)},
    }


def train(out: Path, report: Any, *, mode: int = 0, operation: int = 0) -> None:
    """Goes on from the last checkpoint in ``out``, if there is one; reports where from, each step, and the end."""
    run = trainer(out)
    run.add_callback(Watch(report, mode, operation))
    last = get_last_checkpoint(str(out)) if out.is_dir() else None
    report(0 if last is None else int(last.rpartition("-")[2]))
    with contextlib.redirect_stdout(io.StringIO()):
        run.train(resume_from_checkpoint=None if last is None else True)
    report(digest(run))


def check(out: Path, killed: forks.Child, expected: dict[str, Any]) -> list[str]:
    """What is wrong with a run that was killed and with one that goes on to the end."""
    reached = max((line for line in killed.lines if isinstance(line, int)), default=0)
    again = forks.start(partial(train, out))
    if again.wait() != 0:
        return [f"the resumed run failed; files: {sorted(path.name for path in out.iterdir())}"]
    wrong = []
    if reached - again.lines[0] > SAVE_STEPS:
        wrong.append(f"reached step {reached}, resumed at {again.lines[0]}")
    if again.lines[-1] != expected:
        wrong.append(f"resumed at {again.lines[0]}: another result than uninterrupted")
    left = [path.name for path in out.iterdir() if path.name.startswith("_")]
    if left and again.lines[0] <= STEPS - SAVE_STEPS:
        wrong.append(f"left over: {left}")
    return wrong


def at_operation(out: Path, operation: int, expected: dict[str, Any]) -> list[str]:
    """Killed at one file operation of the save at step 6."""
    killed = forks.start(partial(train, out, mode=KILL, operation=operation))
    if killed.wait() is not None:
        return ["was not killed"]
    return check(out, killed, expected)


def at_random(out: Path, dice: random.Random, seconds: float, expected: dict[str, Any]) -> tuple[list[str], int]:
    """Killed once to three times, each time after a random part of the time that is left to train."""
    kills = dice.randint(1, 3)
    for number in range(1, kills + 1):
        killed = forks.start(partial(train, out))
        killed.wait_for(1)
        time.sleep(dice.uniform(0, seconds))
        killed.kill()
        killed.wait()
        if number == kills:
            return check(out, killed, expected), kills
    raise AssertionError


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--operations", type=int)
    options.add_argument("--random", type=int)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    dice = random.Random(given.seed)

    started = time.monotonic()
    expected = forks.result(partial(train, given.folder / "whole"))
    seconds = time.monotonic() - started
    counted = forks.start(partial(train, given.folder / "counted", mode=COUNT))
    assert counted.wait() == 0
    operations = next(line for line in counted.lines if isinstance(line, list))
    numbers = range(1, len(operations) + 1)
    chosen = list(numbers) if given.operations is None else sorted(dice.sample(numbers, given.operations))
    at_random_moments = given.kills - len(chosen) if given.random is None else given.random

    wrong: list[str] = []
    for number in chosen:
        out = given.folder / f"operation-{number}"
        wrong += [f"{operations[number - 1]} ({number}): {text}" for text in at_operation(out, number, expected)]
        shutil.rmtree(out)
    kills = 0
    while kills < at_random_moments:
        out = given.folder / f"random-{kills}"
        found, count = at_random(out, dice, seconds, expected)
        wrong += [f"random {kills}: {text}" for text in found]
        kills += count
        shutil.rmtree(out, ignore_errors=True)
    result = {
        "wrong": wrong,
        "at operations": len(chosen),
        "operations": operations,
        "at random": kills,
        "same twice": counted.lines[-1] == expected,
        "seconds": round(time.monotonic() - started, 1),
        "process": os.getpid(),
    }
    given.out.write_text(json.dumps(result))
    print(json.dumps({name: value for name, value in result.items() if name != "operations"}))


if __name__ == "__main__":
    main()
