"""A made-up study on the disk with a report, and what its page is made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from report_samples import (
    IMAGE_COUNT,
    make_blocks,
    make_flip,
    make_job,
    make_manifest,
    make_report,
    sha,
)

from liteship.filter_ranks import FilterRank, write_ranks
from liteship.report.html.page import Source
from liteship.report.rows import build_comparison
from liteship.report.summary import summarize
from liteship_agent.manifest import Manifest, ValidationImage, ValidationSet
from liteship_agent.records import write_record
from liteship_agent.report import VOID, Block, Report

BROKEN = "<script>window.broken = true</script>"
EMOJI = "🐕‍🦺 & \"dog\" 'dog'"
ARABIC = "قطة \u2028 \u202e cat"
LONG = "n" * 200
HOSTILE = (BROKEN, EMOJI, ARABIC, LONG)
MEDIANS_NS = {"none-none": 1_540_000, "none-int8": 1_200_000, "magnitude50-none": 1_530_000}
MEDIANS_NS["magnitude50-int8"] = 1_190_000


def jpeg(side: int = 120) -> bytes:
    _, encoded = cv2.imencode(".jpg", np.full((side, side, 3), 90, np.uint8))
    return encoded.tobytes()


def make_study(folder: Path, labels: Sequence[str] = ("dog", "cat"), **changes: Any) -> Manifest:
    """A manifest whose images all are the same picture, with its archive, training histories and filter ranks."""
    picture = jpeg()
    images = tuple(ValidationImage(f"{labels[i % 2]}/{i}.jpg", i % 2, 512, len(picture)) for i in range(IMAGE_COUNT))
    archive = bytes(512) + picture
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "validation.tar").write_bytes(archive)
    (folder / "keras").mkdir(exist_ok=True)
    history = [{"loss": 1 / epoch, "accuracy": 1 - 0.5 / epoch, "validation_accuracy": 0.4} for epoch in (1, 2, 3)]
    for name in ("none", "magnitude50"):
        (folder / "keras" / f"{name}.keras.json").write_text(json.dumps({"key": "", "history": history}))
    ranks = [FilterRank(f"layer {at}", index, "l1", 1.0 + index, index > 3) for at in range(3) for index in range(12)]
    write_ranks(ranks, folder / "keras/filter50-ranks.csv")
    validation = ValidationSet(sha("archive"), len(archive), images)
    manifest = make_manifest(labels=tuple(labels), validation=validation, **changes)
    write_record(manifest, folder / "manifest.json")
    return manifest


def with_void_blocks(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks after each other in time, one of which is void and is measured again."""
    timed, at = [], 1_000_000_000
    for number, block in enumerate(blocks):
        for attempt in (0, 1) if number == 5 else (0,):
            moved = replace(
                block,
                attempt=attempt,
                timed_from_ns=at,
                timed_to_ns=at + 2_000_000_000,
                samples=tuple(
                    replace(sample, at_ns=at + index * 1_000_000_000, temperature_celsius=48.0 + number / 4)
                    for index, sample in enumerate(block.samples)
                ),
            )
            is_void = number == 5 and attempt == 0
            timed.append(replace(moved, validity=VOID, reasons=("the clock fell",)) if is_void else moved)
            at += 2_500_000_000
    return tuple(timed)


def make_timed_report(manifest: Manifest, **changes: Any) -> Report:
    """A report in which time passes, with flips of two artefacts."""
    job = make_job(*MEDIANS_NS, target=changes.get("target", "pi"))
    blocks = with_void_blocks(make_blocks(job, list(MEDIANS_NS.values())))
    paths = [image.path for image in manifest.validation.images]
    flips = [make_flip("none-int8", index, path=paths[index]) for index in range(3)]
    flips.append(make_flip("magnitude50-int8", 1, path=paths[1], against="baseline", cause=None))
    fields: dict[str, Any] = {"job": job, "blocks": blocks, "flips": tuple(flips), "summaries": ()}
    report = make_report(manifest, **{**fields, **changes})
    others = (0.0,) * (len(manifest.labels) - 2)
    widened = [replace(own, scores=tuple((*row, *others) for row in own.scores)) for own in report.accuracy]
    report = replace(report, accuracy=tuple(widened))
    return replace(report, summaries=summarize(report))


def make_source(folder: Path, labels: Sequence[str] = ("dog", "cat"), **changes: Any) -> Source:
    """All that a page is made from; changes are those of the report."""
    manifest = make_study(folder, labels)
    report = make_timed_report(manifest, **changes)
    verdict = ("Ship none-int8, the fastest of 4 rows: 1.20 ms.", "Its accuracy ties with none-none.")
    comparison = build_comparison(manifest, report)
    winner = next((row for row in comparison.rows if row.variant == "none-int8"), None)
    return Source(manifest, report, comparison, folder, verdict, winner)


def write_source(source: Source) -> Path:
    """The report beside its manifest, as `liteship` finds it; gives its file."""
    path = source.study / "reports" / source.report.target / "20261122-101500-0123456789ab.json"
    write_record(source.report, path)
    return path
