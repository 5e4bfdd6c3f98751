"""The reports of all studies: found, listed and read by reference.

A reference is `latest`, or the first digits of a job's id or all of them, each also after `TARGET:`; or the path of a
file, raw report or JSON document of a comparison. A report is read with the manifest that it was made from, which is
kept beside it even where the study has been made anew since.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liteship.built_in import BUILT_IN
from liteship.errors import DataError, ReportError, UsageError
from liteship.manifests import read_manifest_of, study_folder
from liteship.report.comparison import Comparison
from liteship.report.document import SCHEMA_VERSION, comparison_from_json
from liteship.report.rows import build_comparison
from liteship_agent.errors import RecordError
from liteship_agent.manifest import Manifest
from liteship_agent.records import from_json, parse_json
from liteship_agent.report import Report

LATEST = "latest"
_RAW = "latencies_ns|end_to_end_ns|scores|pixel_hashes"
"""Lists that are nearly all of a report, and that only its figures and answers are made from."""
# Numbers, words without brackets, or lists of them. Nothing but a key looks so: in a string, quotes have a backslash.
_RAW_LISTS = re.compile(rb'"(%s)": \[[^]]*(?:\][,\s]*\[[^]]*)*\]+' % _RAW.encode())


@dataclass(frozen=True)
class ReportFile:
    """A report on the disk, `<study>/reports/<target>/<job_id>.json`.

    Args:
        path: Of the file.
    """

    path: Path

    @property
    def job_id(self) -> str:
        """Which job it is of; ids sort by time."""
        return self.path.stem

    @property
    def target(self) -> str:
        """Name of the target."""
        return self.path.parent.name

    @property
    def study(self) -> Path:
        """Folder of the study."""
        return self.path.parents[2]


def find_reports(models: Path, study: str | None = None, target: str | None = None) -> list[ReportFile]:
    """All reports, the latest first.

    Args:
        models: Folder of studies.
        study: Of this one alone.
        target: Of this one alone.
    """
    # Through `latest` every report of that study would come twice.
    kept = {path.resolve() for path in models.glob("*/reports/*/*.json") if not path.name.startswith(".")}
    files = [file for file in map(ReportFile, kept) if study in (None, file.study.name)]
    asked = [file for file in files if target in (None, file.target)]
    return sorted(asked, key=lambda file: (file.job_id, file.study.name, file.target), reverse=True)


def find_report(models: Path, reference: str, study: str | None = None, target: str | None = None) -> ReportFile:
    """The report that a reference stands for.

    Args:
        models: Folder of studies.
        reference: See above; not a path.
        study: Where to look; without one `latest` is of the latest study, and ids are looked for in all.
        target: Where to look, None for all.

    Raises:
        DataError: there is no study.
        UsageError: the reference is empty, or names another target than the one to look in.
        TargetError: no report is of that target, and targets.toml does not have it either.
        ReportError: there is no such report, or several.
    """
    before, colon, name = reference.rpartition(":")
    if not name or (colon and not before):
        raise UsageError(
            f"The id of a report, its first digits, {LATEST} or TARGET:{LATEST} is required. "
            f"Received: {reference or 'nothing'}.",
            "All: liteship reports",
        )
    if colon and target not in (None, before):
        raise UsageError(f"One target is required. Received: {reference} and --target {target}.")
    target = before if colon else target
    if target is not None:
        require_target(models, target)
    if name == LATEST or study is not None:
        study = study_folder(models, study).name
    known = find_reports(models, study, target)
    found = known[:1] if name == LATEST else [file for file in known if file.job_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    where = f" of study {study}" * (study is not None) + f" on {target}" * (target is not None)
    if not known:
        command = f"liteship bench{f' --target {target}' * (target is not None)}"
        raise ReportError(f"A report{where} is required. Received: none.", f"Measure first: {command}")
    some = ", ".join(f"{file.target}:{file.job_id}" for file in (found or known)[:5])
    problem = f"{reference}, which {len(found)} have" if found else reference
    raise ReportError(
        f"The id of one report{where}, its first digits or {LATEST} is required. Received: {problem}; "
        f"there are: {some}.",
        "All: liteship reports",
    )


def require_target(models: Path, name: str) -> None:
    """Raise TargetError for a target that has no report, is not built in and does not stand in the inventory."""
    if "," in name:
        raise UsageError(
            f"--target: one target is required. Received: {name}.",
            f"Several side by side: liteship compare {' '.join(f'{one}:{LATEST}' for one in name.split(',') if one)}",
        )
    measured = {file.target for file in find_reports(models)}
    if name in measured or name in BUILT_IN:
        return
    from liteship.targets import load_targets, unknown_target

    targets = load_targets()
    if name not in targets:
        raise unknown_target(name, sorted({*targets, *measured} - {*BUILT_IN}))


def read_report(file: ReportFile) -> tuple[Manifest, Report]:
    """A report with the manifest that it was made from.

    Raises:
        ReportError: one of them cannot be read or is missing.
    """
    with _collection_paused():
        try:
            data = _parse(file.path)
        except RecordError as exc:
            raise ReportError(f"{exc}.", _hint_on_report(exc)) from exc
        return _decode(file, data)


def parse_thin(path: Path, parts: Iterable[str]) -> Any:
    """Some parts of a report's JSON, without raw latencies and scores: in a fifth of the time that all of it takes.

    Args:
        path: Of the report, as `write_record` writes it.
        parts: Fields of `Report`. In the blocks and the scores of images the lists of `_RAW` are empty.

    Raises:
        RecordError: it cannot be read, or is not JSON.
    """
    try:
        data = json.loads(_RAW_LISTS.sub(rb'"\1": []', path.read_bytes()))
        if not isinstance(data, dict):
            raise ValueError(f"an object is required, received {type(data).__name__}")
        kept = {name: data[name] for name in parts if name in data}
        # A report's strictness is that of parse_json; what is not kept need not have it.
        return parse_json(json.dumps(kept).encode(), str(path))
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except (ValueError, RecursionError) as exc:
        raise RecordError(str(path), "", "a report", str(exc)) from exc


def load_comparison(models: Path, reference: str, study: str | None = None, target: str | None = None) -> Comparison:
    """The comparison that a reference stands for; see `find_report` for the arguments.

    Raises:
        DataError, ReportError: there is no such report, or it cannot be read, or is not whole.
    """
    path = Path(reference)
    if not _is_path(path):
        return build_comparison(*read_report(find_report(models, reference, study, target)))
    with _collection_paused():
        try:
            data = _parse(path)
            if not _is_raw(data):
                return comparison_from_json(data, str(path))
        except RecordError as exc:
            raise ReportError(f"{exc}.", _hint_on_document(exc)) from exc
        return build_comparison(*_decode(_in_its_study(path), data))


def find_report_file(models: Path, reference: str, study: str | None = None, target: str | None = None) -> ReportFile:
    """As `find_report`, for a reference that may be a path too; a document of a comparison is not enough.

    Raises:
        DataError, TargetError, ReportError: as `find_report`, or the file is no raw report beside its study.
    """
    path = Path(reference)
    if not _is_path(path):
        return find_report(models, reference, study, target)
    try:
        data = parse_thin(path, ("rows", "blocks"))
    except RecordError as exc:
        raise ReportError(f"{exc}.", _hint_on_report(exc)) from exc
    if not _is_raw(data):
        raise ReportError(
            f"A raw report, models/<study>/reports/<target>/<job>.json, is required. Received: {path}, another file.",
            "All: liteship reports",
        )
    return _in_its_study(path)


def _is_path(path: Path) -> bool:
    return path.suffix == ".json" or path.is_file()


def _is_raw(data: object) -> bool:
    """Whether it is what was measured, and not the comparison that was made of it."""
    return isinstance(data, dict) and "blocks" in data and "rows" not in data


def _in_its_study(path: Path) -> ReportFile:
    """A raw report, which is read with the manifest that is kept beside it.

    Raises:
        ReportError: it is somewhere else.
    """
    path = path.resolve()
    if path.parent.parent.name != "reports":
        raise ReportError(
            f"A raw report where it was kept, models/<study>/reports/<target>/, is required. Received: {path}.",
            "Its manifest is there. To move a comparison take liteship report --format json.",
        )
    return ReportFile(path)


def _hint_on_report(exc: RecordError) -> str:
    return "" if isinstance(exc.__cause__, OSError) else "Measure again."


def _hint_on_document(exc: RecordError) -> str:
    """What to do about a document that cannot be used; nothing about one that is not there."""
    if isinstance(exc.__cause__, OSError):
        return ""
    if exc.field == "schema_version":
        again = f"liteship report --format json (schema {SCHEMA_VERSION})"
        return f"It may be of another version; write it again: {again}."
    return "Write it again: liteship report --format json."


@contextmanager
def _collection_paused() -> Iterator[None]:
    """No garbage collection while a report becomes objects, none of which is garbage: it takes a tenth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _decode(file: ReportFile, data: Any) -> tuple[Manifest, Report]:
    try:
        report = from_json(Report, data, str(file.path))
    except RecordError as exc:
        raise ReportError(f"{exc}.", _hint_on_report(exc)) from exc
    return _manifest(file, report), report


def _parse(path: Path) -> Any:
    try:
        return parse_json(path.read_bytes(), str(path))
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def _unreadable(path: Path, exc: OSError) -> RecordError:
    received = "no such file" if isinstance(exc, FileNotFoundError) else exc.strerror or str(exc)
    return RecordError(str(path), "", "a readable file", received)


def _manifest(file: ReportFile, report: Report) -> Manifest:
    try:
        return read_manifest_of(file.study, report.manifest_sha256)
    except DataError as exc:
        raise ReportError(exc.message, exc.hint) from exc
