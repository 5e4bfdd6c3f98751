"""What the page says about the model: what it is, how large, and how good it was when it was last measured here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Tuple

from liteship_agent.camera.classifier import Classifier
from liteship_agent.errors import RecordError
from liteship_agent.images import selected_images
from liteship_agent.manifest import HostAccuracy, Manifest
from liteship_agent.records import loads
from liteship_agent.release import MANIFEST, InstalledRelease

_MOST_REPORTS = 3
_MOST_BYTES = 1 << 26  # parsing one takes the interpreter for itself
_MIB = 1 << 20

Row = Tuple[str, str]


@dataclass(frozen=True)
class Accuracy:
    """Of an artefact, counted on this target by a job."""

    correct: int
    total: int
    job_id: str


def card_rows(classifier: Classifier, accuracy: Optional[Accuracy], source: str, study: str) -> List[Row]:
    """Names and values for people.

    Args:
        classifier: The model that runs, with its manifest entry.
        accuracy: Measured on this target, where it was.
        source: Where frames come from.
        study: That the model belongs to.
    """
    rows = [("Variant", classifier.variant), ("Study", study)]
    entry = classifier.entry
    if entry is not None:
        rows.append(("Size", f"{entry.size_bytes / _MIB:.2f} MiB ({entry.size_bytes:,} bytes)"))
        rows.extend(_accuracy_rows(accuracy, entry.host_accuracy))
    runtime = classifier.model.runtime
    contract = classifier.input
    return [
        *rows,
        ("Release", classifier.release_id or "none"),
        ("Runtime", f"{runtime.name} {runtime.version}"),
        ("Threads", str(classifier.model.threads)),
        ("Input", f"{contract.width} x {contract.height}, {contract.dtype}"),
        ("Labels", str(len(classifier.labels))),
        ("Source", source),
    ]


def _accuracy_rows(accuracy: Optional[Accuracy], host: HostAccuracy) -> List[Row]:
    if accuracy is None:
        text = f"{_percent(host.correct, host.total)}, on the computer that made it; not measured here yet"
        return [("Accuracy", text)]
    return [
        ("Accuracy", f"{_percent(accuracy.correct, accuracy.total)}, measured here"),
        ("Report", accuracy.job_id),
    ]


def _percent(correct: int, total: int) -> str:
    return f"{100 * correct / total:.1f} % of {total} images" if total else "no images"


def measured_accuracy(folder: Path, sha256: str) -> Optional[Accuracy]:
    """What the latest report of this target that has the artefact says; null where none of the latest few has."""
    reports = sorted((folder / "jobs").glob("*/report.json"), reverse=True)
    for path in reports[:_MOST_REPORTS]:
        try:
            if path.stat().st_size <= _MOST_BYTES:
                found = _accuracy_in(folder, path, sha256)
                if found is not None:
                    return found
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecordError):
            continue  # of another version, or damaged: the card does without it
    return None


def _accuracy_in(folder: Path, path: Path, sha256: str) -> Optional[Accuracy]:
    content = path.read_bytes()
    if sha256.encode() not in content:
        return None
    report: Any = json.loads(content)
    rows = next((one["scores"] for one in report["accuracy"] if one["artefact"] == sha256), None)
    manifest = _manifest(folder, report["job"]["release_id"], report["manifest_sha256"])
    if rows is None or manifest is None:
        return None
    images = selected_images(manifest, report["job"]["limit"])
    correct = sum(row.index(max(row)) == image.label for row, image in zip(rows, images))
    return Accuracy(correct, len(images), path.parent.name) if len(rows) == len(images) else None


def _manifest(folder: Path, release_id: str, sha256: str) -> Optional[Manifest]:
    """That of the report, which tells the labels of its images; null where its release is not here any more."""
    path = InstalledRelease(folder, release_id).path / MANIFEST
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    return loads(Manifest, content, str(path))
