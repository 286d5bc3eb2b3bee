"""Python processes that a program under ``python -m patcher run`` starts are patched as it is itself.

`accelerate launch`, `torchrun`, `trl sft` and `multiprocessing` run the training in a child. Its environment carries
what ``run`` was asked for, and a folder that comes first on its import path: `sitecustomize.py` there patches before
the child's program begins.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping

VARIABLE = "PATCHER_RUN"
"""Set in the children: the interpreter's prefix, this package's folder and the options of ``run``, as JSON."""


def variables(environment: Mapping[str, str], *, strict: bool, verbose: bool) -> dict[str, str]:
    """What the environment of children needs, beside ``environment``, so that they are patched."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    here = os.path.join(package, "children")
    theirs = environment.get("PYTHONPATH", "")  # an empty entry is the working directory, an empty variable is not
    rest = [path for path in theirs.split(os.pathsep) if path != here] if theirs else []
    order = {"prefix": sys.prefix, "root": os.path.dirname(package), "strict": strict, "verbose": verbose}
    return {VARIABLE: json.dumps(order), "PYTHONPATH": os.pathsep.join([here, *rest])}
