"""Runs torch's databases with the patches and without, and says which results differ."""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter

from tests.same_torch.comparison import differences, every_case, listed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.same_torch", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="every Nth case")
    parser.add_argument("--shard", default="1/1", help="part i of n, e.g. 1/4")
    parser.add_argument("--inputs", type=int, help="the most inputs of a case")
    parser.add_argument("--match", default="", help="only cases in whose text this expression is found")
    options = parser.parse_args()
    part, parts = map(int, options.shard.split("/"))
    everything = every_case()
    cases = [case for case in everything if re.search(options.match, str(case))][:: options.every][part - 1 :: parts]
    known = listed()
    found = differences(cases, known, options.inputs)
    for difference in found:
        print(f"{'listed' if known.reason(difference) else 'not listed'}: {difference}")
    whole = options.inputs is None  # a case may differ in a later input alone
    stale = {str(case) for case in cases if whole} & known.cases.keys() - {str(difference.case) for difference in found}
    stale |= known.cases.keys() - {str(case) for case in everything}
    print("".join(f"listed, but the same: {case}\n" for case in sorted(stale)), end="")
    for (kind, device), count in sorted(Counter((case.kind, case.device) for case in cases).items()):
        differing = sum((each.case.kind, each.case.device) == (kind, device) for each in found)
        print(f"{kind}s on {device}: {count} cases, {differing} differ")
    return 1 if stale or not all(map(known.reason, found)) else 0


if __name__ == "__main__":
    sys.exit(main())
