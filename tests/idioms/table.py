"""The table of idioms and the page that shows it; ``python -m tests.idioms.table`` writes the page's table anew."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROWS: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "table.toml").read_text())["idiom"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "idioms.md"
HEAD = "| A script writes | Scripts | It becomes |\n|---|---|---|\n"


def printed() -> str:
    """The table as the page has it."""
    return HEAD + "".join(f"| `{row['write']}` | {row.get('scripts', '')} | {row['becomes']} |\n" for row in ROWS)


if __name__ == "__main__":
    PAGE.write_text(re.sub(re.escape(HEAD) + r"(?:\|.*\n)*", lambda _: printed(), PAGE.read_text()))
