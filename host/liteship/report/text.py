"""Figures as a person reads them: rounded, with an en dash for one that does not exist."""

from __future__ import annotations

import math

MISSING = "–"


def plain(text: str) -> str:
    """One line without control characters: reasons come from another machine and may hold terminal escapes."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def count(number: int, noun: str) -> str:
    """1 thread, 1,024 images."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(ratio: float | None) -> str:
    """A share of 0 to 1 in percent, with one decimal."""
    return MISSING if ratio is None else f"{100 * ratio:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """Two shares in percent, without the sign."""
    return MISSING if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f}"


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


def three_digits(value: float) -> str:
    """At least three significant digits, never an exponent: 0.0123, 1.54, 13.6, 254, 1254."""
    rounded = float(f"{value:.3g}")
    if rounded <= 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(rounded)))}f}"
