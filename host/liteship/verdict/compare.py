"""Two measurements beside each other, row by row: what became slower, less accurate or larger beyond doubt.

Latencies of two jobs are independent samples, accuracies on the same images are compared image by image. A latency
that cannot be compared is not judged, and says why; one of another board is shown and not judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from liteship.built_in import EMULATED
from liteship.report.comparison import Comparison, Header, Row
from liteship.report.sentences import row_name, varying_settings
from liteship.report.statuses import status_word
from liteship.report.text import count, cpu_list, plain
from liteship.stats import independent_difference
from liteship.verdict.environments import Difference, are_boards_equal, find_differences, latency_obstacles
from liteship.verdict.matching import match_rows
from liteship.verdict.pairs import Estimate, answers_of_row, difference_of_answers, ratio_of_jobs, ratio_of_p90
from liteship.verdict.trust import is_unstable

BETTER, WORSE, OPEN = "better", "worse", "open"
NAMES = ("A", "B")
OTHER_BOARDS = "other board"
OTHER_IMAGES = "other images"
NO_INTERVAL = "no interval"
LEAST_SIZE_RATIO = 0.001
"""Files that differ by less are equal: names and dates inside them vary."""


@dataclass(frozen=True)
class Change:
    """One figure of a row in two measurements.

    Args:
        estimate: The second as a multiple of the first, of accuracies the second less the first; None without one.
        verdict: "better" or "worse" beyond doubt, "open" where the interval holds no change; None where not judged.
        reason: Why it is not judged, or how it was; empty where there is nothing to say.
    """

    estimate: Estimate | None
    verdict: str | None
    reason: str = ""


@dataclass(frozen=True)
class RowChange:
    """One row in two measurements.

    Args:
        name: Its variant and setting.
        first, second: The rows.
        latency, p90: Of one invocation: its median and 90th percentile.
        end_to_end, start: Of an image from decoding to classification; of loading and first invocation together.
        accuracy, size, gzip: Of the file.
        memory, anonymous: Largest resident set and anonymous memory of its processes.
            What has no interval (end_to_end, start, memory, anonymous) is shown and never judged.
        notes: What else is another: the file, the runtime, the status.
    """

    name: str
    first: Row
    second: Row
    latency: Change
    p90: Change
    end_to_end: Change
    start: Change
    accuracy: Change
    size: Change
    gzip: Change
    memory: Change
    anonymous: Change
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Alone:
    """A row that only one measurement has.

    Args:
        name: Its variant and setting.
        row: The row.
    """

    name: str
    row: Row


@dataclass(frozen=True)
class Changes:
    """Two measurements.

    Args:
        names: What they are called in sentences.
        first, second: Their headers.
        rows: Rows that both have.
        only_first, only_second: Rows that only one has.
        differences: What differs between machines, runtimes, settings and images.
    """

    names: tuple[str, str]
    first: Header
    second: Header
    rows: tuple[RowChange, ...]
    only_first: tuple[Alone, ...]
    only_second: tuple[Alone, ...]
    differences: tuple[Difference, ...]


def compare(first: Comparison, second: Comparison, names: tuple[str, str] = NAMES) -> Changes:
    """Compare two measurements.

    Args:
        first: What is referred to.
        second: What is compared with it.
        names: What they are called in reasons.

    Raises:
        ReportError: the answers of a row do not fit their number of images.
    """
    matched = match_rows(first, second)
    varying = tuple(dict.fromkeys((*varying_settings(first.rows), *varying_settings(second.rows))))
    same_board = are_boards_equal(first.header, second.header)

    def judged(change: Change) -> Change:
        return change if same_board else replace(change, verdict=None)

    def unjudged(field: Callable[[Row], float | None], one: Row, other: Row) -> Change:
        found = _quotient(field(one), field(other))
        return Change(found, None, NO_INTERVAL if found else "not known")

    rows = []
    for one, other in matched.pairs:
        latency = compare_latency(first.header, one, second.header, other, names)
        rows.append(
            RowChange(
                name=row_name(one if one.threads is not None else other, varying),
                first=one,
                second=other,
                latency=latency,
                p90=_compare_p90(latency, one, other),
                end_to_end=unjudged(lambda row: row.end_to_end_median_ns, one, other),
                start=unjudged(start_ns, one, other),
                accuracy=judged(_accuracy(first, one, second, other, names)),
                size=judged(_size(one.size_bytes, other.size_bytes)),
                gzip=judged(_size(one.gzip_bytes, other.gzip_bytes)),
                memory=unjudged(lambda row: row.rss_peak_bytes, one, other),
                anonymous=unjudged(lambda row: row.rss_anon_bytes, one, other),
                notes=_notes(one, other),
            )
        )
    return Changes(
        names=names,
        first=first.header,
        second=second.header,
        rows=tuple(rows),
        only_first=tuple(Alone(row_name(row, varying), row) for row in matched.only_first),
        only_second=tuple(Alone(row_name(row, varying), row) for row in matched.only_second),
        differences=find_differences((first, second)),
    )


def compare_latency(first: Header, one: Row, second: Header, other: Row, names: tuple[str, str]) -> Change:
    """The ratio of two latencies, judged where machine and setting are the same and both are stable."""
    sides = ((names[0], first, one), (names[1], second, other))
    if emulated := [name for name, header, _ in sides if header.target == EMULATED]:
        return Change(None, None, f"{' and '.join(emulated)} emulated")
    if missing := [name for name, _, row in sides if row.median_ns is None]:
        return Change(None, None, f"not measured in {' and '.join(missing)}")
    if unstable := [name for name, _, row in sides if is_unstable(row)]:
        return Change(None, None, f"unstable in {' and '.join(unstable)}")
    if one.threads != other.threads:
        return Change(None, None, f"{one.threads} and {count(other.threads or 0, 'thread')}")
    boards_equal = are_boards_equal(first, second)
    if one.cpus != other.cpus and boards_equal:
        return Change(None, None, f"CPUs {cpu_list(one.cpus)} and {cpu_list(other.cpus)}")
    estimate = ratio_of_jobs(other, one)
    if estimate is None:
        return Change(None, None, "no undisturbed round")
    if not boards_equal:
        return Change(estimate, None, OTHER_BOARDS)
    if estimate.low is None:
        return Change(estimate, None, "a single round: no interval")
    if obstacles := latency_obstacles(first, second):
        return Change(estimate, None, "; ".join(obstacles))
    return _judged(estimate)


def _compare_p90(latency: Change, one: Row, other: Row) -> Change:
    """The ratio of the 90th percentiles, judged where that of the medians is."""
    estimate = None if latency.estimate is None else ratio_of_p90(other, one)
    if estimate is None:
        return Change(None, None, latency.reason or "no p90")
    if latency.verdict is None:
        return Change(estimate, None, latency.reason)
    return _judged(estimate)


def _judged(estimate: Estimate) -> Change:
    if estimate.low is None:
        return Change(estimate, None, NO_INTERVAL)
    return Change(estimate, WORSE if estimate.is_above(1) else BETTER if estimate.is_below(1) else OPEN)


def start_ns(row: Row) -> float | None:
    """From loading to the first answer; None where one of the two is not known."""
    return None if row.init_ns is None or row.first_ns is None else row.init_ns + row.first_ns


def _accuracy(first: Comparison, one: Row, second: Comparison, other: Row, names: tuple[str, str]) -> Change:
    own, others = answers_of_row(second, other), answers_of_row(first, one)
    if own is None or others is None:
        missing = [name for name, found in zip(names, (others, own), strict=True) if found is None]
        return Change(None, None, f"not measured in {' and '.join(missing)}")
    if own.labels != others.labels:
        return Change(None, None, "other classes")
    same_images = first.header.images_sha256 == second.header.images_sha256 and own.image_count == others.image_count
    if same_images:
        estimate = difference_of_answers(own, others)
    else:
        estimate = Estimate(*independent_difference(others.correct, others.image_count, own.correct, own.image_count))
    verdict = BETTER if estimate.is_above(0) else WORSE if estimate.is_below(0) else OPEN
    return Change(estimate, verdict, "" if same_images else OTHER_IMAGES)


def _size(one: int | None, other: int | None) -> Change:
    found = _quotient(one, other)
    if found is None:
        return Change(None, None, "not known")
    if abs(found.value - 1) < LEAST_SIZE_RATIO:
        return Change(found, OPEN)
    return Change(found, WORSE if found.value > 1 else BETTER)


def _quotient(one: float | None, other: float | None) -> Estimate | None:
    return Estimate(other / one, None, None) if one and other else None


def _notes(one: Row, other: Row) -> tuple[str, ...]:
    found = []
    if one.sha256 != other.sha256:
        found.append("other file")
    if None not in (one.runtime, other.runtime) and _runtime(one) != _runtime(other):
        found.append(f"{_runtime(one)}, then {_runtime(other)}")
    if status_word(one) != status_word(other):
        found.append(f"{status_word(one)}, then {status_word(other)}")
    return tuple(plain(note) for note in found)


def _runtime(row: Row) -> str:
    return f"{row.runtime} {row.runtime_version}"
