"""TrainingArguments and every TRL configuration: what is rewritten, refused and left alone on mps, and the report."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import io
import logging
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HfArgumentParser, Seq2SeqTrainingArguments, Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from patcher.changes.transformers import trainer as transformers_trainer
from patcher.changes.transformers import training_args as transformers_training_args
from patcher.engine.ledger import LEDGER
from patcher.engine.model import State
from patcher.errors import NotOnMac
from patcher.macs.machine import Machine
from patcher.training import optimizer_names
from patcher.training.arguments import Rewrite, decide, rewrites
from patcher.training.rules import RULES
from tests.machines import M3_MAX

OLD_TORCH = dataclasses.replace(M3_MAX, torch="2.12.1")
OLD_MACOS = dataclasses.replace(M3_MAX, macos=(13, 7))
M1 = dataclasses.replace(M3_MAX, chip="Apple M1")
LINUX = dataclasses.replace(M3_MAX, system="Linux", chip="x86_64", macos=None, mps=False, cuda=True)


def after(values: dict[str, Any], machine: Machine = M3_MAX) -> dict[str, Any]:
    """``values`` as training sees them on ``machine``."""
    return values | {outcome.field: outcome.new for outcome in decide(values, machine)}


@pytest.fixture
def on_m3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Both patches in place as on an M3_MAX Max; the working directory is a temporary one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    LEDGER.machine = M3_MAX
    for change in (*transformers_training_args.CHANGES, *transformers_trainer.CHANGES):
        entry = LEDGER.apply(change, importlib.import_module(change.module))
        assert entry.state in (State.APPLIED, State.UNREVIEWED), entry
    yield
    LEDGER.undo()


# -- the optimizers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", ["adamw_8bit", OptimizerNames.ADAMW_8BIT])
def test_optimizer_name_or_member(spelled: object) -> None:
    """An optimizer is recognised as text and as a member of OptimizerNames."""
    (outcome,) = decide({"optim": spelled}, M3_MAX, "SFTConfig")
    assert (outcome.field, outcome.new) == ("optim", "adamw_torch_fused")
    assert "8-bit" in outcome.reason


# -- the other fields ----------------------------------------------------------------------------------------------

WORKERS = {
    "dataloader_num_workers": 4,
    "dataloader_prefetch_factor": 2,
    "dataloader_persistent_workers": True,
    "dataloader_multiprocessing_context": None,
}
COMPILE = {"torch_compile": True, "torch_compile_backend": "inductor", "torch_compile_mode": "max-autotune"}
CHECKPOINT = {"use_reentrant": False, "offload": True}


@pytest.mark.parametrize(
    ("machine", "given_values", "changes"),
    [
        (M3_MAX, {"dataloader_pin_memory": True}, {"dataloader_pin_memory": False}),
        (M3_MAX, {"tf32": True}, {"tf32": None}),
        (M3_MAX, {"activation_offloading": True}, {"activation_offloading": False}),
        (M3_MAX, {"use_liger_kernel": True}, {"use_liger_kernel": False}),
        (M3_MAX, {"dataset_num_proc": 1}, {"dataset_num_proc": None}),
        (M3_MAX, {"dataset_num_proc": 2, "unsloth_num_chunks": -1}, {"dataset_num_proc": None}),
        (
            M3_MAX,
            WORKERS,
            {
                "dataloader_num_workers": 0,
                "dataloader_prefetch_factor": None,
                "dataloader_persistent_workers": False,
            },
        ),
        (
            M3_MAX,
            {"gradient_checkpointing_kwargs": CHECKPOINT},
            {"gradient_checkpointing_kwargs": {"use_reentrant": False}},
        ),
        (
            M3_MAX,
            {"gradient_checkpointing_kwargs": '{"offload": true}'},
            {"gradient_checkpointing_kwargs": {}},
        ),
        (M3_MAX, {"torch_compile_backend": "cudagraphs"}, {"torch_compile_backend": "inductor"}),
        (
            OLD_TORCH,
            COMPILE,
            {"torch_compile": False, "torch_compile_backend": None, "torch_compile_mode": None},
        ),
        (OLD_TORCH, {"optim": "adamw_torch_fused", "fp16": True}, {"optim": "adamw_torch"}),
        (OLD_TORCH, {"optim": "adamw_8bit", "fp16": True}, {"optim": "adamw_torch"}),
        (OLD_MACOS, {"bf16": True, "bf16_full_eval": True}, {"bf16": False, "bf16_full_eval": False}),
    ],
)
def test_rewritten(machine: Machine, given_values: dict[str, Any], changes: dict[str, Any]) -> None:
    """What mps cannot do is replaced, with a reason, and nothing else is touched."""
    assert after(given_values, machine) == given_values | changes
    assert all(outcome.reason for outcome in decide(given_values, machine))


@pytest.mark.parametrize(
    ("machine", "values"),
    [
        (M3_MAX, {"optim": "adamw_torch_fused", "fp16": True}),
        (M3_MAX, {"optim": "adafactor", "optim_args": None}),
        (M3_MAX, {"bf16": True}),
        (M3_MAX, {"fp16": True}),
        (M1, {"bf16": True}),
        (M3_MAX, {"tf32": False}),
        (M3_MAX, {"padding_free": None, "packing": True}),
        (M3_MAX, {"padding_free": True, "packing": True}),
        (M3_MAX, {"padding_free": True}),
        (M3_MAX, {"dataloader_num_workers": 2, "dataloader_multiprocessing_context": "spawn"}),
        (M3_MAX, COMPILE),
        (M3_MAX, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}),
        (M3_MAX, {"auto_find_batch_size": True, "full_determinism": True}),
        (M3_MAX, {"train_sampling_strategy": "group_by_length"}),
        (M3_MAX, {"ddp_find_unused_parameters": False, "ddp_timeout": 180000000, "local_rank": 0}),
        (M3_MAX, {"fsdp": "", "deepspeed": None, "ddp_backend": None, "ddp_broadcast_buffers": False}),
        (M3_MAX, {"use_vllm": False, "vllm_mode": "colocate"}),
        (M3_MAX, {"dataset_num_proc": 1, "unsloth_num_chunks": -1}),
    ],
)
def test_left_alone(machine: Machine, values: dict[str, Any]) -> None:
    """What the user set and mps can do stays, also where there is something to say about it."""
    assert after(values, machine) == values


@pytest.mark.parametrize(
    ("values", "alternative"),
    [
        ({"fsdp": "full_shard"}, "one process"),
        ({"fsdp": True}, "one process"),
        ({"deepspeed": "ds_config.json"}, "gradient_checkpointing"),
        ({"ddp_backend": "nccl"}, "one process"),
        ({"ddp_static_graph": False}, "one process"),
        ({"ddp_broadcast_buffers": True}, "one process"),
        ({"parallelism_config": object()}, "one process"),
        ({"local_rank": 1}, "one process"),
        ({"world_size": 2}, "one process"),
        ({"tpu_num_cores": 8}, "remove it"),
        ({"use_vllm": True}, "use_vllm=False"),
        ({"optim": "adalomo"}, "adafactor"),
    ],
)
def test_refused(values: dict[str, Any], alternative: str) -> None:
    """What a Mac cannot do raises an error that names the class, the field, its value and the alternative."""
    with pytest.raises(NotOnMac) as error:
        decide(values, M3_MAX, "GRPOConfig")
    (field,) = values
    assert f"GRPOConfig.{field}" in str(error.value)
    assert alternative in str(error.value)


@pytest.mark.parametrize("elsewhere", ["use_cpu", "no_cuda", "environment", "linux"])
def test_nothing_happens_off_mps(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on the CPU, or on a machine without mps, keeps every argument, those that mps would refuse included."""
    values = {rule.field: True for rule in RULES} | {"optim": "adamw_8bit", "deepspeed": "ds.json"}
    if elsewhere == "environment":
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    else:
        values[elsewhere] = True
    assert decide(values, LINUX if elsewhere == "linux" else M3_MAX) == []


def test_note_without_change() -> None:
    """bf16 on an M1 stays and is explained."""
    (note,) = decide({"bf16": True}, M1)
    assert note.old is note.new is True
    assert "M1" in str(note)


_VALUES = st.fixed_dictionaries(
    {},
    optional={
        "optim": st.sampled_from([name.value for name in OptimizerNames if name.value not in optimizer_names.REFUSED]),
        "fp16": st.booleans(),
        "bf16": st.booleans(),
        "torch_compile": st.booleans(),
        "torch_compile_backend": st.sampled_from([None, "inductor", "cudagraphs", "eager"]),
        "torch_compile_mode": st.sampled_from([None, "reduce-overhead"]),
        "dataloader_num_workers": st.integers(0, 4),
        "dataloader_multiprocessing_context": st.sampled_from([None, "fork", "spawn"]),
        "dataloader_prefetch_factor": st.sampled_from([None, 2]),
        "dataloader_persistent_workers": st.booleans(),
        "padding_free": st.sampled_from([None, False, True]),
        "gradient_checkpointing_kwargs": st.sampled_from([None, {"offload": True}, {"use_reentrant": True}]),
    },
)


@given(_VALUES, st.sampled_from([M3_MAX, M1, OLD_TORCH, OLD_MACOS]))
@settings(deadline=None, max_examples=100)
def test_second_look_changes_nothing(values: dict[str, Any], machine: Machine) -> None:
    """dataclasses.replace and the Trainer's second look find nothing left to change."""
    once = after(values, machine)
    assert after(once, machine) == once


# -- the real classes ----------------------------------------------------------------------------------------------


def _trl_configs() -> dict[str, type[TrainingArguments]]:
    """Every configuration class of the installed TRL, by name; found by walking the package."""
    import trl

    found = {}
    for module in pkgutil.walk_packages(trl.__path__, "trl."):
        if module.name.endswith("_config"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if inspect.isclass(value) and issubclass(value, TrainingArguments):
                    found[name] = value
    return {name: value for name, value in found.items() if not name.startswith("_")}


_REQUIRED = {
    "AsyncDistillationConfig": {"teacher_server_urls": {"teacher": "http://localhost"}},
    "ServerDistillationConfig": {"teacher_model_server_url": "http://localhost", "loss_top_k": 1},
}


def test_every_trl_config(on_m3: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every TRL configuration, the experimental ones included, reaches the hook; none keeps what mps lacks."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    configs = _trl_configs()
    assert {"SFTConfig", "DPOConfig", "GRPOConfig", "RLOOConfig", "KTOConfig", "RewardConfig"} <= set(configs)
    for name, config_class in configs.items():
        config = config_class(optim="adamw_8bit", bf16=False, dataloader_num_workers=2, **_REQUIRED.get(name, {}))
        assert config.optim == OptimizerNames.ADAMW_TORCH_FUSED, name
        assert config.dataloader_pin_memory is False, name
        assert config.dataloader_num_workers == 0, name
        if "use_vllm" in {field.name for field in dataclasses.fields(config_class)}:
            with pytest.raises(NotOnMac, match=f"{name}.use_vllm"):
                config_class(use_vllm=True, bf16=False, **_REQUIRED.get(name, {}))


def test_changed_before_transformers_validates(on_m3: None) -> None:
    """Values that TrainingArguments itself would reject on a Mac are rewritten before it looks at them."""
    with pytest.raises(ValueError, match="tf32"):
        TrainingArguments(tf32=True, use_cpu=True)
    assert TrainingArguments(tf32=True).tf32 is None
    assert TrainingArguments(optim="adamw_apex_fused").optim == OptimizerNames.ADAMW_TORCH_FUSED
    args = TrainingArguments(dataloader_num_workers=2, dataloader_prefetch_factor=2)
    assert (args.dataloader_prefetch_factor, args.dataloader_multiprocessing_context) == (None, None)


def test_every_way_to_create(on_m3: None) -> None:
    """Keyword, dict, command line and dataclasses.replace all go through the rules."""
    created = [
        Seq2SeqTrainingArguments(optim="paged_adamw_8bit"),
        HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(["--optim", "adamw_bnb_8bit"])[0],
        HfArgumentParser(TrainingArguments).parse_dict({"optim": "adamw_8bit"})[0],
        dataclasses.replace(TrainingArguments(), optim="adamw_8bit"),
    ]
    assert [args.optim for args in created] == [OptimizerNames.ADAMW_TORCH_FUSED] * 4


def test_changed_after_creation(on_m3: None) -> None:
    """set_optimizer, set_dataloader, assignment and unpickled arguments are looked at when a Trainer takes them."""
    import torch

    buffer = io.BytesIO()
    args = TrainingArguments(report_to="none")
    args.set_optimizer(name="adamw_8bit")
    args.set_dataloader(pin_memory=True, num_workers=2)
    args.accelerator_config.non_blocking = True
    torch.save(args, buffer)
    buffer.seek(0)
    unpickled = torch.load(buffer, weights_only=False)
    assert unpickled.optim == OptimizerNames.ADAMW_8BIT
    trainer = Trainer(torch.nn.Linear(2, 2), unpickled, train_dataset=[{"x": 0}])
    assert trainer.args.optim == "adamw_torch_fused"
    assert (trainer.args.dataloader_num_workers, trainer.args.dataloader_pin_memory) == (0, False)
    assert trainer.accelerator.dataloader_config.non_blocking is False
    assert type(trainer.create_optimizer()).__name__ == "AdamW"


def test_non_blocking_copies_are_switched_off(on_m3: None) -> None:
    """accelerator_config, as a dict or as its JSON text, keeps its other settings."""
    for given_value in ({"non_blocking": True, "even_batches": False}, '{"non_blocking": true, "even_batches": false}'):
        config = TrainingArguments(accelerator_config=given_value).accelerator_config
        assert (config.non_blocking, config.even_batches) == (False, False)


def test_cpu_run_is_left_alone(on_m3: None) -> None:
    """use_cpu=True keeps every argument."""
    args = TrainingArguments(use_cpu=True, optim="adamw_8bit", dataloader_num_workers=1)
    assert (args.optim, args.dataloader_num_workers) == (OptimizerNames.ADAMW_8BIT, 1)
    assert rewrites() == []


def test_reported_once(on_m3: None, caplog: pytest.LogCaptureFixture) -> None:
    """Each rewrite is one line with old value, new value and reason, however many configurations need it."""
    with caplog.at_level(logging.INFO, logger="patcher"):
        TrainingArguments(optim="adamw_8bit")
        TrainingArguments(optim="adamw_8bit")
        Seq2SeqTrainingArguments(optim="lion_8bit")
    shown = [(outcome.field, outcome.old, outcome.new) for outcome in rewrites()]
    assert shown == [
        ("optim", "adamw_8bit", "adamw_torch_fused"),
        ("dataloader_pin_memory", True, False),
        ("optim", "lion_8bit", "lion_32bit"),
    ]
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "patcher"]
    assert [level for level, _ in lines] == ["WARNING", "INFO", "WARNING"], "a class's own default is no warning"
    assert lines[0][1].startswith("patcher: TrainingArguments: optim='adamw_8bit' becomes 'adamw_torch_fused': ")


def test_undo_forgets(on_m3: None) -> None:
    """After undo the class behaves as transformers ships it, and the report is empty."""
    TrainingArguments(optim="adamw_8bit")
    assert rewrites()
    LEDGER.undo()
    assert rewrites() == []
    assert TrainingArguments(optim="adamw_8bit").optim == OptimizerNames.ADAMW_8BIT


def test_rewrite_reads_well() -> None:
    """The line of a rewrite names class, field, both values and the reason."""
    line = str(Rewrite("SFTConfig", "optim", OptimizerNames.LION_8BIT, "lion_32bit", "because"))
    assert line == "SFTConfig: optim='lion_8bit' becomes 'lion_32bit': because"
