"""``torch.OutOfMemoryError`` as seen by an ``except`` clause.

torch's allocator for mps raises RuntimeError from C++, wherever in a script memory happens to run out, and `except`
compares types without asking anybody. But the name behind `except` is looked up when the exception is already there:
it then names the type that this exception has.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType

TOO_LARGE = "Invalid buffer size: "
"""How torch begins where one tensor is longer than a Metal buffer may be."""


class KnowsOutOfMemory(ModuleType):
    """The modules ``torch`` and ``torch.cuda``: while an exception of an mps out of memory is handled,
    ``OutOfMemoryError`` is RuntimeError; else torch's own class.
    """

    @property
    def OutOfMemoryError(self) -> type[RuntimeError]:
        """torch's class, or RuntimeError where that is what has to be caught now."""
        error = sys.exc_info()[1]
        if type(error) is RuntimeError and is_out_of_memory(error):
            if str(error).startswith(TOO_LARGE):
                error.args = (f"MPS backend out of memory: {error}",)
            return RuntimeError
        own: type[RuntimeError] = vars(self)["OutOfMemoryError"]
        return own

    @OutOfMemoryError.setter
    def OutOfMemoryError(self, value: type[RuntimeError]) -> None:
        vars(self)["OutOfMemoryError"] = value

    @OutOfMemoryError.deleter
    def OutOfMemoryError(self) -> None:
        del vars(self)["OutOfMemoryError"]

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """Its name: dill, cloudpickle and joblib know modules by their exact type, and ask others as pickle does."""
        return importlib.import_module, (self.__name__,)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether ``error``, or what it was raised from, says that memory ran out."""
    seen: set[int] = set()  # ``raise error from error`` makes a circle
    while error is not None and id(error) not in seen:
        text = str(error)
        if "out of memory" in text.lower() or text.startswith(TOO_LARGE):
            return True
        seen.add(id(error))
        error = error.__cause__
    return False
