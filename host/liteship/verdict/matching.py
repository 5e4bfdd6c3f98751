"""Which rows of two comparisons stand for the same: variant and setting."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from liteship.report.comparison import Comparison, Row

Key = tuple[object, ...]


@dataclass(frozen=True)
class Matched:
    """Rows of two comparisons beside each other.

    Args:
        pairs: Those that stand for the same, in the order of the first comparison.
        only_first, only_second: Those without another.
    """

    pairs: tuple[tuple[Row, Row], ...]
    only_first: tuple[Row, ...]
    only_second: tuple[Row, ...]


def match_rows(first: Comparison, second: Comparison) -> Matched:
    """Rows by variant, threads and CPUs, and by runtime where one of the comparisons has several.

    A runtime or version that differs between the comparisons is what is compared. What is left over is matched by
    variant alone: several with a row that was not run, which has no setting, or one with one.
    """
    names, versions = (_has_several(first, second, by_version=by_version) for by_version in (False, True))

    def runtime_of(row: Row) -> Key:
        return (row.runtime if names else None, row.runtime_version if versions else None)

    def key_of(row: Row) -> Key:
        return (row.variant, row.threads, row.cpus, *runtime_of(row))

    free: dict[Key, list[int]] = defaultdict(list)
    for index, row in enumerate(second.rows):
        free[key_of(row)].append(index)
    found = {index: free[key_of(row)].pop(0) for index, row in enumerate(first.rows) if free[key_of(row)]}
    taken = set(found.values())
    left = [index for index in range(len(second.rows)) if index not in taken]
    alone = Counter(row.variant for index, row in enumerate(first.rows) if index not in found)
    for index, row in enumerate(first.rows):
        if index in found:
            continue
        others = [
            other
            for other in left
            if second.rows[other].variant == row.variant
            and (second.rows[other].runtime is None or runtime_of(second.rows[other]) == runtime_of(row))
        ]
        if len(others) == 1 and (second.rows[others[0]].threads is None or alone[row.variant] == 1):
            found[index] = others[0]
    taken = set(found.values())
    return Matched(
        pairs=tuple((first.rows[one], second.rows[other]) for one, other in sorted(found.items())),
        only_first=tuple(row for index, row in enumerate(first.rows) if index not in found),
        only_second=tuple(row for index, row in enumerate(second.rows) if index not in taken),
    )


def _has_several(first: Comparison, second: Comparison, *, by_version: bool) -> bool:
    """Whether one of the comparisons has several runtimes, or one of them in several versions."""
    for comparison in (first, second):
        found = {(row.runtime, row.runtime_version) for row in comparison.rows if row.threads is not None}
        names = {name for name, _ in found}
        if len(names) < len(found) if by_version else len(names) > 1:
            return True
    return False
