"""Made-up comparisons for the tests of verdicts: rows and answers without a report behind them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from liteship.report.accuracy import Answers
from liteship.report.comparison import Comparison, Header, Row
from liteship.stats import discordant_difference, wilson_interval

IMAGES = 200
ROUNDS = 6


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_header(**changes: Any) -> Header:
    fields: dict[str, Any] = {
        "target": "pi",
        "study": "pets",
        "board": "Raspberry Pi 5 Model B Rev 1.0",
        "runtime": "ai-edge-litert",
        "runtime_version": "2.3.0",
        "threads": 1,
        "cpus": (0, 1, 2, 3),
        "tier": "rapid",
        "image_count": IMAGES,
        "job_id": "20261122-101500-0123456789ab",
        "date": "2026-11-22 10:15",
        "baseline": "none-none",
        "baseline_is_float": True,
        "repeats": 2,
        "forced": False,
        "problems": (),
        "blind_sensors": (),
        "pixels_different": 0,
        "largest_pixel_difference": 0,
        "images_sha256": sha("images"),
        "manifest_sha256": sha("manifest"),
        "environment": {"machine": "aarch64", "kernel": "6.6.31", "python": "3.11.2"},
    }
    return Header(**{**fields, **changes})


def make_row(variant: str = "none-none", ms: float = 2.0, **changes: Any) -> Row:
    """A valid row; its rounds scatter by one percent around its median, each row's in its own order.

    Args:
        variant: Its name.
        ms: Its median in ms.
        changes: Other fields; `wrong` is how many images it gets wrong, for `make_comparison`.
    """
    ns = ms * 1e6
    scatter = random.Random(variant)
    fields: dict[str, Any] = {
        "variant": variant,
        "sha256": sha(variant),
        "status": "valid",
        "runtime": "ai-edge-litert",
        "runtime_version": "2.3.0",
        "threads": 1,
        "cpus": (0, 1, 2, 3),
        "validity": "valid",
        "size_bytes": 4 * 2**20,
        "gzip_bytes": 3 * 2**20,
        "rss_peak_bytes": 90 * 2**20,
        "median_ns": ns,
        "median_low_ns": 0.99 * ns,
        "median_high_ns": 1.01 * ns,
        "p90_ns": 1.05 * ns,
        "p90_low_ns": 1.04 * ns,
        "p90_high_ns": 1.06 * ns,
        "p90_bound_ns": 1.10 * ns,
        "round_medians_ns": tuple(ns * scatter.uniform(0.99, 1.01) for _ in range(ROUNDS)),
        "blocks": ROUNDS,
        "repeated": 0,
        "void": 0,
    }
    return Row(**{**fields, **changes})


def make_answers(row: Row, wrong: Sequence[int], image_count: int = IMAGES, **changes: Any) -> Answers:
    low, high = wilson_interval(image_count - len(wrong), image_count)
    fields: dict[str, Any] = {
        "variant": row.variant,
        "sha256": row.sha256,
        "runtime": row.runtime,
        "runtime_version": row.runtime_version,
        "correct": image_count - len(wrong),
        "image_count": image_count,
        "low_ratio": low,
        "high_ratio": high,
        "labels": ("dog", "cat"),
        "wrong": tuple(sorted(wrong)),
        "confusion": ((1, 0), (0, 1)),
        "golden_difference": 0.0,
        "golden_tolerance": 0.001,
        "flips": (),
    }
    return Answers(**{**fields, **changes})


def make_comparison(*rows: tuple[Row, Sequence[int]], **header: Any) -> Comparison:
    """Of rows with the images that each gets wrong; accuracy and its difference to the first row follow from them."""
    made = make_header(**header)
    answers: dict[tuple[Any, ...], Answers] = {}
    full = []
    first = set(rows[0][1]) if rows else set()
    for row, wrong in rows:
        own = make_answers(row, wrong, made.image_count)
        answers[row.sha256, row.runtime, row.runtime_version] = own
        row = replace(
            row,
            target_correct=own.correct,
            image_count=own.image_count,
            target_accuracy_ratio=own.correct / own.image_count,
            target_accuracy_low_ratio=own.low_ratio,
            target_accuracy_high_ratio=own.high_ratio,
        )
        if row.variant != made.baseline:
            mine = set(wrong)
            difference, low, high = discordant_difference(len(first - mine), len(mine - first), own.image_count)
            row = replace(
                row,
                accuracy_difference_ratio=difference,
                accuracy_difference_low_ratio=low,
                accuracy_difference_high_ratio=high,
            )
        full.append(row)
    return Comparison(made, tuple(full), tuple(answers.values()))
