"""What the long tests found, kept in benchmarks/results/faults.md."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.md"
_TITLE = "# Deploys that are cut\n\nWritten by `make test-faults`.\n"


def note(title: str, lines: list[str]) -> None:
    """Keep a section of the results, in place of the one that an earlier run wrote."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else _TITLE
    section = f"\n## {title}\n\n{datetime.date.today().isoformat()}\n\n" + "\n".join(lines) + "\n"
    pattern = re.compile(rf"\n## {re.escape(title)}\n.*?(?=\n## |\Z)", re.DOTALL)
    found = pattern.search(text)
    changed = text[: found.start()] + section + text[found.end() :] if found else text.rstrip("\n") + "\n" + section
    RESULTS.write_text(changed, encoding="utf-8")
