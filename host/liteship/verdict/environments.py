"""What differs between the measurements that are compared: machines, runtimes, settings, images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from liteship.report.comparison import Comparison, Header
from liteship.report.text import MISSING, cpu_list, mebibytes, plain

_ENVIRONMENT = {
    "machine": "architecture",
    "cpu_model": "CPU",
    "cpu_count": "CPUs online",
    "kernel": "kernel",
    "os": "operating system",
    "libc": "libc",
    "python": "Python",
    "governor": "governor",
    "memory_bytes": "memory",
}


@dataclass(frozen=True)
class Difference:
    """Something that is not the same everywhere.

    Args:
        name: What it is.
        values: In each comparison, in words.
    """

    name: str
    values: tuple[str, ...]


def find_differences(comparisons: Sequence[Comparison]) -> tuple[Difference, ...]:
    """What is not the same in all comparisons, the machine first; dates and jobs always differ and are left out."""
    columns = [_described(comparison) for comparison in comparisons]
    found = []
    for name in columns[0]:
        values = tuple(plain(column[name]) or MISSING for column in columns)
        if len(set(values)) > 1:
            found.append(Difference(name, values))
    return tuple(found)


def board_name(header: Header) -> str:
    """The board with its architecture, or that it is unknown."""
    machine = header.environment.get("machine")
    return plain(f"{header.board or 'unknown board'}{f' ({machine})' if machine else ''}")


def are_boards_equal(first: Header, second: Header) -> bool:
    """Whether both were measured on the same kind of board; an unknown one only where the target is the same too."""
    if board_name(first) != board_name(second):
        return False
    return first.board is not None or first.target == second.target


def latency_obstacles(first: Header, second: Header) -> list[str]:
    """Why the latencies of two measurements on the same kind of board must not be judged by each other."""
    found = []
    for field in ("cpu_count", "governor"):
        values = [_shown(header.environment.get(field)) for header in (first, second)]
        if values[0] != values[1]:
            found.append(f"other {_ENVIRONMENT[field]}: {values[0]} and {values[1]}")
    if first.forced != second.forced:
        found.append("one side was forced")
    return found


def _shown(value: object) -> str:
    return MISSING if value is None else plain(str(value))


def _described(comparison: Comparison) -> dict[str, str]:
    header, rows = comparison.header, [row for row in comparison.rows if row.threads is not None]
    environment = header.environment
    described = {"study": header.study, "target": header.target, "board": header.board or ""}
    for field, name in _ENVIRONMENT.items():
        value = environment.get(field)
        is_size = field == "memory_bytes" and isinstance(value, int)
        described[name] = "" if value is None else f"{mebibytes(value)} MiB" if is_size else str(value)
    return {
        **described,
        "runtime": _listed(f"{row.runtime} {row.runtime_version}" for row in rows),
        "threads": _listed(str(row.threads) for row in rows),
        "CPUs": _listed(cpu_list(row.cpus) for row in rows),
        "tier": header.tier,
        "rounds": _listed(str(len(row.round_medians_ns)) for row in rows),
        "images": f"{header.image_count} of {header.images_sha256[:12]}",
        "models": f"manifest {header.manifest_sha256[:12]}",
        "baseline": header.baseline or "",
        "forced": "; ".join(header.problems) or "yes" if header.forced else "no",
    }


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
