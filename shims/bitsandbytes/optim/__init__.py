"""Optimizers under the names of bitsandbytes. Making one raises MissingLibrary, which names a torch optimizer."""

from __future__ import annotations

from typing import NoReturn

from bitsandbytes.functional import missing
from bitsandbytes.optim import optimizer as optimizer
from bitsandbytes.optim.optimizer import INSTEAD, Optimizer1State, Optimizer2State


class GlobalOptimManager:
    """Settings per parameter. Cannot be made."""

    @classmethod
    def get_instance(cls) -> NoReturn:
        """Raises MissingLibrary."""
        raise missing("optim.GlobalOptimManager.get_instance", INSTEAD)


class Adagrad(Optimizer1State): ...


class Adagrad8bit(Optimizer1State): ...


class Adagrad32bit(Optimizer1State): ...


class Adam(Optimizer2State): ...


class Adam8bit(Optimizer2State): ...


class Adam32bit(Optimizer2State): ...


class PagedAdam(Optimizer2State): ...


class PagedAdam8bit(Optimizer2State): ...


class PagedAdam32bit(Optimizer2State): ...


class AdamW(Optimizer2State): ...


class AdamW8bit(Optimizer2State): ...


class AdamW32bit(Optimizer2State): ...


class PagedAdamW(Optimizer2State): ...


class PagedAdamW8bit(Optimizer2State): ...


class PagedAdamW32bit(Optimizer2State): ...


class AdEMAMix(Optimizer2State): ...


class AdEMAMix8bit(Optimizer2State): ...


class AdEMAMix32bit(Optimizer2State): ...


class PagedAdEMAMix(Optimizer2State): ...


class PagedAdEMAMix8bit(Optimizer2State): ...


class PagedAdEMAMix32bit(Optimizer2State): ...


class LAMB(Optimizer2State): ...


class LAMB8bit(Optimizer2State): ...


class LAMB32bit(Optimizer2State): ...


class LARS(Optimizer1State): ...


class LARS8bit(Optimizer1State): ...


class LARS32bit(Optimizer1State): ...


class Lion(Optimizer1State): ...


class Lion8bit(Optimizer1State): ...


class Lion32bit(Optimizer1State): ...


class PagedLion(Optimizer1State): ...


class PagedLion8bit(Optimizer1State): ...


class PagedLion32bit(Optimizer1State): ...


class RMSprop(Optimizer1State): ...


class RMSprop8bit(Optimizer1State): ...


class RMSprop32bit(Optimizer1State): ...


class SGD(Optimizer1State): ...


class SGD8bit(Optimizer1State): ...


class SGD32bit(Optimizer1State): ...
