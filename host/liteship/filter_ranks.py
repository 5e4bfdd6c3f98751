"""What filter pruning did to every filter, as it is kept in `keras/<pruning>-ranks.csv`. Needs no TensorFlow."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from liteship.errors import UsageError
from liteship_agent.records import write_atomic

_KEPT = {"true": True, "false": False}


@dataclass(frozen=True)
class FilterRank:
    """What became of one filter of the original model.

    Args:
        layer: Its layer.
        index: In the original layer.
        criterion: How it was ranked.
        score: Of its channel in the round that removed it, or in the last one: summed over the filters that it is
            tied to and divided by the L2 norm over the group's channels.
        kept: Whether it is still there.
    """

    layer: str
    index: int
    criterion: str
    score: float
    kept: bool


def write_ranks(ranks: Sequence[FilterRank], path: Path) -> None:
    """Write a CSV with one line per filter: layer, index, criterion, score, kept (true or false)."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("layer", "index", "criterion", "score", "kept"))
    table.writerows((r.layer, r.index, r.criterion, f"{r.score:.6g}", str(r.kept).lower()) for r in ranks)
    write_atomic(path, text.getvalue().encode())


def read_ranks(path: Path) -> list[FilterRank]:
    """Read what `write_ranks` wrote.

    Raises:
        UsageError: the file is missing or damaged.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                FilterRank(r["layer"], int(r["index"]), r["criterion"], float(r["score"]), _KEPT[r["kept"]])
                for r in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise UsageError(
            f"{path}: a table of filter ranks is required. Received: {exc!r}", "Remove it and run the recipe again."
        ) from exc
