"""Training arguments written for CUDA become ones that mps can carry out; each change is reported once, with its why.

`decide` is a pure function of the values and the machine. `rewrite` puts its outcomes into a configuration object,
before the class's own ``__post_init__`` validates them; `settle` treats what exists only after it. A configuration
for the CPU, or on a machine without mps, is left alone.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from patcher.engine.ledger import LEDGER
from patcher.environment import value_of
from patcher.errors import NotOnMac, compose
from patcher.macs.machine import Machine
from patcher.training.rules import RULES, Become, Refuse, Rule, Values

_LOGGER = logging.getLogger("patcher")


@dataclass(frozen=True)
class Rewrite:
    """One field that got another value; or kept its own, with something to be known about it (``old == new``).

    Attributes:
        config: name of the configuration class, e.g. ``"SFTConfig"``.
        field: the field, e.g. ``"optim"``.
        old: the value as the script gave it.
        new: the value with which training runs.
        reason: why.
    """

    config: str
    field: str
    old: object
    new: object
    reason: str

    def __str__(self) -> str:
        if self.old == self.new:
            return f"{self.config}: {self.field}={_text(self.old)}: {self.reason}"
        return f"{self.config}: {self.field}={_text(self.old)} becomes {_text(self.new)}: {self.reason}"


class Record:
    """The rewrites since the patches are in place, each field, old and new value once."""

    def __init__(self) -> None:
        self._rewrites: dict[tuple[str, str, str], Rewrite] = {}

    def add(self, rewrite: Rewrite) -> bool:
        """Records ``rewrite``; returns whether it is the first of its kind."""
        key = (rewrite.field, repr(rewrite.old), repr(rewrite.new))
        if key in self._rewrites:
            return False
        self._rewrites[key] = rewrite
        return True

    def all(self) -> list[Rewrite]:
        """The rewrites in the order in which they were made."""
        return list(self._rewrites.values())


def rewrites() -> list[Rewrite]:
    """The training arguments that were changed since the patches are in place, for the report."""
    return LEDGER.memory(Record).all()


def decide(values: Values, machine: Machine, config: str = "TrainingArguments") -> list[Rewrite]:
    """What becomes of ``values`` on ``machine``: at most one rewrite for each field; changes nothing.

    Args:
        values: field names and values, as the script gave them.
        machine: the machine on which training runs.
        config: name of the configuration class, for the messages.

    Raises:
        NotOnMac: a value asks for something that a Mac cannot do; the message names the alternative.
    """
    if not _on_mps(values, machine):
        return []
    current: dict[str, Any] = dict(values)
    outcomes: dict[str, Rewrite] = {}
    for rule in RULES:
        if rule.field not in current or not rule.when(current, machine):
            continue
        if isinstance(rule.then, Refuse):
            raise _refusal(rule, rule.then, current[rule.field], config)
        outcome = _outcome(rule, current, config)
        current[rule.field] = outcome.new
        outcomes[rule.field] = _merge(outcomes.get(rule.field), outcome)
    return list(outcomes.values())


def rewrite(config: Any, machine: Machine) -> list[Rewrite]:
    """Puts the outcomes into ``config``, a dataclass instance, and reports each once. Raises NotOnMac as `decide`."""
    outcomes = decide(_values(config), machine, type(config).__name__)
    for outcome in outcomes:
        setattr(config, outcome.field, outcome.new)
    _report(outcomes, type(config))
    return outcomes


def settle(config: Any, machine: Machine) -> list[Rewrite]:
    """The same for what exists only after ``__post_init__``: accelerator settings and number of processes."""
    accelerator = getattr(config, "accelerator_config", None)
    values = {
        "use_cpu": getattr(config, "use_cpu", False),
        "world_size": getattr(config, "world_size", 1),
        "accelerator_config.non_blocking": getattr(accelerator, "non_blocking", False),
    }
    outcomes = decide(values, machine, type(config).__name__)
    for outcome in outcomes:
        setattr(accelerator, outcome.field.rpartition(".")[2], outcome.new)
    _report(outcomes, type(config))
    return outcomes


def _on_mps(values: Values, machine: Machine) -> bool:
    cpu = values.get("use_cpu") or values.get("no_cuda") or value_of("ACCELERATE_USE_CPU") in ("1", "true", "True")
    return machine.mps and not cpu


def _values(config: Any) -> dict[str, Any]:
    """The fields that the instance has; a subclass with its own ``__init__`` sets some later or never."""
    names = (field.name for field in dataclasses.fields(config))
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def _outcome(rule: Rule, values: Values, config: str) -> Rewrite:
    old = new = values[rule.field]
    if isinstance(rule.then, Become):
        new = rule.then.value(values) if callable(rule.then.value) else rule.then.value
    return Rewrite(config, rule.field, old, new, rule.reason)


def _merge(earlier: Rewrite | None, later: Rewrite) -> Rewrite:
    if earlier is None:
        return later
    return dataclasses.replace(later, old=earlier.old, reason=f"{earlier.reason}; {later.reason}")


def _refusal(rule: Rule, refuse: Refuse, found: object, config: str) -> NotOnMac:
    return NotOnMac(
        compose(
            f"{config}({rule.field}={_text(found)}) cannot work on a Mac: {rule.reason}",
            target=f"{config}.{rule.field}",
            found=_text(found),
            left="training has not started; no argument was changed",
            run=refuse.instead,
        )
    )


def _report(outcomes: Iterable[Rewrite], config: type) -> None:
    """One line for each new outcome: a warning, or only information where the value is the class's own default."""
    defaults: Mapping[str, Any] = {field.name: field.default for field in dataclasses.fields(config)}
    for outcome in outcomes:
        if LEDGER.memory(Record).add(outcome):
            chosen = outcome.old != defaults.get(outcome.field, dataclasses.MISSING)
            _LOGGER.log(logging.WARNING if chosen else logging.INFO, "patcher: %s", outcome)


def _text(value: object) -> str:
    return repr(getattr(value, "value", value))
