"""The table of idioms and the page that shows it; ``python -m tests.idioms.table`` writes the page's tables anew."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GROUPS: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "table.toml").read_text())["group"]
ROWS: list[dict[str, Any]] = [row for group in GROUPS for row in group["idiom"]]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "idioms.md"
HEAD = "| A script writes | Scripts | It becomes |\n|---|---|---|\n"
END_OF_PAGE = re.compile(r"### .*\Z", re.DOTALL)
"""The tables: the first heading of a group, and all that follows."""


def printed() -> str:
    """The tables as the page has them, each with its heading."""
    return "\n".join(f"### {group['name']}\n\n{HEAD}{_rows(group['idiom'])}" for group in GROUPS)


def _rows(rows: list[dict[str, Any]]) -> str:
    return "".join(f"| `{row['write']}` | {row.get('scripts', '')} | {row['becomes']} |\n" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(END_OF_PAGE.sub(lambda _: printed(), PAGE.read_text()))
