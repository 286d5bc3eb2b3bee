"""Runs cases with or without the patches: `python -m tests.same_torch.worker patched FILE`, cases from its input.

It reads one case a line, as JSON, and writes one line a case to FILE: a digest of each result to the last bit, and the
exception that ended the case, if one did. Without input it writes the cases that there are.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

MAC = "M1 8GB"
"""Every guard is in place on an M1."""

UNINITIALISED = re.compile(r"(new_)?empty(_like|_permuted|_strided)?|resize_(as_)?|bfloat16_empty")
"""Operators whose numbers are whatever lies in memory: only their shapes, dtypes and devices are compared."""


def main(patched: bool, path: str, limit: int | None) -> None:
    if patched:
        from patcher import patch_for_mac

        patch_for_mac(simulate=MAC)
    else:
        from patcher.simulator import start

        start(MAC)
    import torch

    from tests.fidelity.database import _answer_macos, _supply_expecttest

    torch.set_num_threads(1)
    _supply_expecttest()
    _answer_macos((15, 5))
    from tests.same_torch.cases import Case, Databases

    databases = Databases()
    warnings.simplefilter("ignore")
    asked = [Case(*json.loads(line)) for line in sys.stdin]
    with open(path, "w") as answers:
        if not asked:
            answers.writelines(
                json.dumps([case.kind, case.name, case.device, case.dtype]) + "\n" for case in databases.cases()
            )
        for case in asked:
            outcome = [str(case), *_outcome(databases.results(case, limit), UNINITIALISED.fullmatch(case.name) is None)]
            print(json.dumps(outcome), file=answers, flush=True)


def _outcome(results: Iterator[Any], values: bool) -> Iterator[str]:
    try:
        for result in results:
            yield digest(result, values)
    except Exception as error:  # noqa: BLE001 - whatever is raised is the outcome
        yield re.sub(r"0x[0-9a-f]+", "0x", f"{type(error).__name__}: {error}")


def digest(result: Any, values: bool = True) -> str:
    """A hash of every tensor in ``result``: its dtype, shape, strides, layout, device and bits; of other values the repr.

    Args:
        values: False leaves the bits out.
    """
    import torch
    from torch.utils import _pytree as pytree

    seen = hashlib.sha256()
    for leaf in pytree.tree_leaves(result):
        if not isinstance(leaf, torch.Tensor):
            seen.update(re.sub(r"0x[0-9a-f]+", "0x", repr(leaf)).encode())
            continue
        seen.update(repr((leaf.dtype, leaf.shape, leaf.layout, leaf.device, leaf.requires_grad)).encode())
        if leaf.layout == torch.strided and not leaf.is_nested:
            seen.update(repr(leaf.stride()).encode())
        if values:
            for part in _strided(leaf.detach()):
                seen.update(part.resolve_conj().resolve_neg().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return seen.hexdigest()[:16]


def _strided(x: Any) -> list[Any]:
    import torch

    if x.is_nested:
        return list(x.unbind())
    if x.is_quantized:
        return [x.int_repr()]
    return [x if x.layout == torch.strided else x.to_dense()]


if __name__ == "__main__":
    main(sys.argv[1] == "patched", sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
