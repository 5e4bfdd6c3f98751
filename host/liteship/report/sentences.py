"""What is said below the tables in sentences: how far latencies can be trusted, where they are not plausible, which
answers differ, and what sparse storage brings. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from liteship.report.accuracy import EXPLAINED, HOST, KERNELS, PIXELS, Answers
from liteship.report.comparison import Comparison, Header, Row
from liteship.report.plausibility import LOWEST_PEAK_RATIO
from liteship.report.text import count, cpu_list, percent, plain
from liteship_agent.report import REPEATED, UNKNOWN, UNSTABLE

_NAMES_SHOWN = 3
_UNTIL = "\x1f"
"""Between the ends of a range while texts are merged."""
_RANGE = re.compile(rf"(?<![\w.-])(\d+(?:\.\d+)?)(?:{_UNTIL}(\d+(?:\.\d+)?))?")
_COUNTED = re.compile(r" of a core\b| cores?\b|(?<=block)s\b")


def varying_settings(rows: Iterable[Row]) -> tuple[str, ...]:
    """Which of "threads", "cpus" and "runtime" differ between the rows."""
    run = [row for row in rows if row.threads is not None]
    kinds: dict[str, set[object]] = {
        "threads": {row.threads for row in run},
        "cpus": {row.cpus for row in run},
        "runtime": {(row.runtime, row.runtime_version) for row in run},
    }
    return tuple(name for name, values in kinds.items() if len(values) > 1)


def setting_texts(row: Row, varying: Sequence[str]) -> dict[str, str]:
    """What of a row's setting differs from other rows, in words; empty where it was not run."""
    texts = {
        "threads": "" if row.threads is None else count(row.threads, "thread"),
        "cpus": "" if row.cpus is None else f"CPUs {cpu_list(row.cpus)}",
        "runtime": f"{row.runtime or ''} {row.runtime_version or ''}".strip(),
    }
    return {name: plain(texts[name]) for name in varying if texts[name]}


def row_name(row: Row, varying: Sequence[str]) -> str:
    """A row's variant, with what of its setting differs from other rows."""
    return ", ".join([plain(row.variant), *setting_texts(row, varying).values()])


def forced_sentence(header: Header) -> str | None:
    """What the preflight found and was overridden, None where nothing was forced."""
    if not header.forced:
        return None
    problems = _ranges_shown("; ".join(_merged(header.problems)))
    return plain(f"forced: {problems or 'the preflight found nothing to override'}")


def validity_sentences(comparison: Comparison) -> list[str]:
    """Why rows are not simply valid; rows with the same reason share a sentence."""
    varying = varying_settings(comparison.rows)
    measured = [row for row in comparison.rows if row.validity is not None]
    said = [(row_name(row, varying), _validity(row, comparison.header)) for row in measured]
    sentences = _grouped(said, "every row", _kind)
    blind = "; ".join(comparison.header.blind_sensors)
    return [*sentences, plain(f"nothing here tells about throttling: {blind}")] if blind else sentences


def plausibility_sentences(rows: Sequence[Row]) -> list[str]:
    """Which latencies are so long for their arithmetic that it asks for an explanation."""
    low = [row for row in rows if row.peak_ratio is not None and row.peak_ratio < LOWEST_PEAK_RATIO]
    return [plain(f"{row_name(row, varying_settings(rows))}: {_plausibility(row)}") for row in low]


def flip_sentences(comparison: Comparison) -> list[str]:
    """How many answers are not the host's, and on how many images the pixels are not."""
    answers, header = comparison.answers, comparison.header
    several = len({(own.runtime, own.runtime_version) for own in answers}) > 1
    names = [f"{own.variant}, {own.runtime} {own.runtime_version}" if several else own.variant for own in answers]
    sentences = _grouped([(name, _flips(own)) for name, own in zip(names, answers, strict=True)], "every artefact")
    if header.pixels_different:
        largest = header.largest_pixel_difference
        steps = "" if largest is None else f", by {largest} of 255 at most"
        images = count(header.image_count, "image")
        sentences.append(f"the resized pixels of {header.pixels_different} of {images} are not the host's{steps}")
    return sentences


def sparse_sentences(rows: Sequence[Row]) -> list[str]:
    """One sentence for each file that is stored sparse: may sparse kernels run it, and was it faster here."""
    varying = varying_settings(rows)
    return [plain(f"{row_name(row, varying)}: {_verdict(row)}; {_speedup(row)}") for row in rows if row.stored_sparse]


def _validity(row: Row, header: Header) -> str:
    """Why a row is not simply valid, empty where it is."""
    reasons = f" ({'; '.join(_merged(row.reasons))})" if row.reasons else ""
    repeated = f"{count(row.repeated or 0, 'block')} repeated"
    if row.validity == UNSTABLE:
        return f"{row.void} of {count(row.blocks or 0, 'block')} void{_repetitions(header)}{reasons}: it cannot win"
    if row.validity == UNKNOWN:
        return f"throttle unknown{f', {repeated}' if row.repeated else ''}{reasons}"
    return repeated + reasons if row.validity == REPEATED else ""


def _merged(texts: Iterable[str]) -> list[str]:
    """Texts that differ only in their figures are one, with the range of each figure."""
    kinds: dict[str, list[str]] = {}
    for text in texts:
        kinds.setdefault(_kind(text), []).append(text)
    return [_with_ranges(alike) for alike in kinds.values()]


def _kind(text: str) -> str:
    """A text without its figures and what agrees with them in number."""
    return _COUNTED.sub("", _RANGE.sub("#", text))


def _with_ranges(alike: Sequence[str]) -> str:
    """One of texts that differ only in their figures, that with the largest, with the range of each: 1.2 to 1.8."""
    columns = zip(*([found.groups() for found in _RANGE.finditer(text)] for text in alike), strict=True)
    ranges = []
    for column in columns:
        figures = sorted({figure for pair in column for figure in pair if figure is not None}, key=float)
        ranges.append(figures[0] if float(figures[0]) == float(figures[-1]) else f"{figures[0]}{_UNTIL}{figures[-1]}")
    found = iter(ranges)
    return _RANGE.sub(lambda _: next(found), max(alike, key=_largest))


def _ranges_shown(text: str) -> str:
    """1.2 to 1.8; with a dash where the text has a "to" of its own: from 1500 to 900–1000 MHz."""
    return text.replace(_UNTIL, "–" if " to " in text else " to ")


def _joint(alike: Sequence[str]) -> str:
    return alike[0] if len(set(alike)) == 1 else _with_ranges(alike)


def _largest(text: str) -> list[float]:
    return [max(float(figure) for figure in found.groups() if figure) for found in _RANGE.finditer(text)]


def _repetitions(header: Header) -> str:
    """Nothing is repeated in a forced job."""
    return "" if header.forced else f" after {count(header.repeats, 'repetition')}"


def _grouped(said: Sequence[tuple[str, str]], everyone: str, kind: Callable[[str], str] = str) -> list[str]:
    """Sentences of names and what is said of them, each kind once; what is empty is left out."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, text in said:
        if text:
            groups.setdefault(kind(text), []).append((name, text))
    return [
        plain(
            f"{everyone if len(alike) == len(said) > 1 else '; '.join(name for name, _ in alike)}: "
            f"{_ranges_shown(_joint([text for _, text in alike]))}"
        )
        for alike in groups.values()
    ]


def _plausibility(row: Row) -> str:
    clock = "" if row.peak_clock_hz is None else f" at {row.peak_clock_hz / 1e6:.0f} MHz"
    return f"{percent(row.peak_ratio)} of the float32 peak of {row.peak_core}{clock}: {'; '.join(row.peak_reasons)}"


def _flips(own: Answers) -> str:
    """The answers that are not the host's, by cause, the first of each by name; empty where there are none."""
    parts = []
    for cause, words in ((PIXELS, "by pixels"), (KERNELS, "by kernels"), (None, "without a known cause")):
        paths = [flip.path for flip in own.flips if flip.against == HOST and flip.cause == cause]
        if paths:
            names = [*paths[:_NAMES_SHOWN], *(["..."] if len(paths) > _NAMES_SHOWN else [])]
            why = f": {_unexplained(own)}" if cause is None else ""
            parts.append(f"{len(paths)} {words} ({', '.join(names)}{why})")
    if not parts:
        return ""
    return f"{own.count_flips(HOST)} of {own.image_count} answers differ from the host's: {', '.join(parts)}"


def _unexplained(own: Answers) -> str:
    """Why flips have no cause: those with the host's pixels always have one, of the others so many are sent."""
    others = sum(flip.against == HOST and flip.largest_pixel_difference != 0 for flip in own.flips)
    if others > EXPLAINED:
        return f"not looked for beyond {EXPLAINED}"
    return "the host resizes them otherwise today, or the link was lost"


def _verdict(row: Row) -> str:
    if row.sparse_eligible:
        return f"eligible for sparse kernels ({row.sparse_holds_for})"
    return f"not eligible for sparse kernels: {f'{row.sparse_layer}: ' if row.sparse_layer else ''}{row.sparse_reason}"


def _speedup(row: Row) -> str:
    if row.sparse_speedup_ratio is None:
        return "not measured against a dense twin here"
    return f"measured {row.sparse_speedup_ratio:.2f}x against its dense twin here"
