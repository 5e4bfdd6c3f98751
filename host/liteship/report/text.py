"""Figures as a person reads them: rounded, with an en dash for one that does not exist."""

from __future__ import annotations

import math
from collections.abc import Sequence

from liteship_agent.cpus import format_cpus

MISSING = "–"


def plain(text: str) -> str:
    """One line without control characters: reasons come from another machine and may hold terminal escapes."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def count(number: int, noun: str) -> str:
    """1 thread, 1,024 images."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def cpu_list(cpus: Sequence[int] | None) -> str:
    """CPUs as Linux lists them: 0-3, or 0,2,4-7."""
    return format_cpus(cpus) if cpus else MISSING


def percent(ratio: float | None) -> str:
    """A share of 0 to 1 in percent, with one decimal."""
    return MISSING if ratio is None else f"{100 * ratio:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """Two shares in percent, without the sign."""
    return MISSING if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f}"


def points(ratio: float | None) -> str:
    """A difference of two shares in percentage points, with its sign and one decimal."""
    if ratio is None:
        return MISSING
    rounded = round(100 * ratio, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def points_interval(low: float | None, high: float | None) -> str:
    """Two differences in percentage points."""
    return MISSING if low is None or high is None else f"{points(low)} to {points(high)}"


def probability(p: float | None) -> str:
    """The p of a test, with two decimals, or three where it is small."""
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def multiple(ratio: float | None) -> str:
    """How many times as much, with two decimals, or three below a tenth."""
    return MISSING if ratio is None else f"{ratio:.{2 if ratio >= 0.0995 else 3}f}"


def multiple_interval(low: float | None, high: float | None) -> str:
    """Two multiples."""
    return MISSING if low is None or high is None else f"{multiple(low)}–{multiple(high)}"


def mebibytes(size_bytes: int | None) -> str:
    """A size in MiB, with three digits."""
    return MISSING if size_bytes is None else three_digits(size_bytes / 2**20)


def mebibytes_and_bytes(size_bytes: int | None) -> str:
    """A size in MiB with the exact bytes beside it."""
    return MISSING if size_bytes is None else f"{mebibytes(size_bytes)} ({size_bytes:,})"


def millions(count: int | None) -> str:
    """A count in millions, with three digits."""
    return MISSING if count is None else three_digits(count / 1e6)


def milliseconds(latency_ns: float | None) -> str:
    """A latency in ms, with three digits."""
    return MISSING if latency_ns is None else three_digits(latency_ns / 1e6)


def milliseconds_within(latency_ns: float | None, low_ns: float | None, high_ns: float | None) -> str:
    """A latency in ms with the larger half of its interval, rounded up: 1.54 ±0.02."""
    text = milliseconds(latency_ns)
    if latency_ns is None or low_ns is None or high_ns is None:
        return text
    steps = 10 ** len(text.partition(".")[2])
    half = math.ceil(max(high_ns - latency_ns, latency_ns - low_ns, 0.0) / 1e6 * steps) / steps
    return f"{text} ±{half:.{len(str(steps)) - 1}f}"


def three_digits(value: float) -> str:
    """At least three significant digits, never an exponent: 0.0123, 1.54, 13.6, 254, 1254."""
    rounded = float(f"{value:.3g}")
    if rounded <= 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(rounded)))}f}"
