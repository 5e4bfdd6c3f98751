"""What is taken for what: a confusion matrix for each artefact and runtime, bounded where there are many labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from liteship.report.accuracy import Answers
from liteship.report.charts.chart import MOST_WIDTH, Chart, Section, Table, named, to_spec
from liteship.report.text import count, percent, plain

MOST_LABELS = 40
"""A matrix of more labels cannot be read; the pairs that are confused most can."""

_MOST_MATRICES = 24
_MOST_TABLE_LABELS = 12
_MOST_PAIRS = 20
_MOST_LETTERS = 24
_UPRIGHT_LETTERS = 7
_MOST_LABELS_WITH_FIGURES = 20
_CELL = 30


def confusion_section(answers: Sequence[Answers]) -> Section:
    """A matrix for each; above `MOST_LABELS` labels only its table of pairs."""
    if not answers:
        return Section("confusion", "What is taken for what", (), ("No images were classified.",))
    shown, sentences = answers[:_MOST_MATRICES], []
    if len(shown) < len(answers):
        sentences.append(f"Those of {len(answers) - len(shown)} more artefacts stand in liteship report --format json.")
    if len(answers[0].labels) > MOST_LABELS:
        sentences.insert(0, f"{len(answers[0].labels)} labels are too many for a matrix: the pairs confused most.")
    several = len({(own.runtime, own.runtime_version) for own in answers}) > 1
    drawn = _spec(answers[0].labels) if len(answers[0].labels) <= MOST_LABELS else {}
    charts = tuple(_chart(own, index, several, drawn) for index, own in enumerate(shown))
    return Section("confusion", "What is taken for what", charts, tuple(sentences), folded=len(charts) > 1)


def _chart(own: Answers, index: int, several: bool, drawn: Mapping[str, Any]) -> Chart:
    runtime = f", {plain(own.runtime)} {plain(own.runtime_version)}" if several else ""
    wrong = own.image_count - own.correct
    return Chart(
        name=f"confusion-{index + 1}",
        title=f"{plain(own.variant)}{runtime}: {wrong:,} of {count(own.image_count, 'image')} wrong",
        summary=f"How often images of each label got each answer from {plain(own.variant)}{runtime}.",
        spec={**drawn, "datasets": {"cells": _cells(own)}} if drawn else {},
        table=_table(own),
    )


def _table(own: Answers) -> Table:
    """The matrix itself where it is small, else what each label is taken for, or the pairs confused most."""
    labels = [plain(label) for label in own.labels]
    if len(labels) <= _MOST_TABLE_LABELS:
        lines = tuple((truth, *map(str, counts)) for truth, counts in zip(labels, own.confusion, strict=True))
        return Table(("truth", *labels), lines)
    if len(labels) <= MOST_LABELS:
        return Table(
            ("truth", "images", "right", "taken for"),
            tuple(
                (truth, f"{sum(counts):,}", f"{counts[at]:,}", _others(at, counts, labels))
                for at, (truth, counts) in enumerate(zip(labels, own.confusion, strict=True))
            ),
        )
    pairs = sorted(
        (
            (-images, truth, answer)
            for truth, counts in enumerate(own.confusion)
            for answer, images in enumerate(counts)
            if images and truth != answer
        )
    )
    return Table(
        ("truth", "answer", "images", "of the label"),
        tuple(
            (labels[truth], labels[answer], f"{-images:,}", percent(-images / sum(own.confusion[truth])))
            for images, truth, answer in pairs[:_MOST_PAIRS]
        ),
    )


def _others(at: int, counts: Sequence[int], labels: Sequence[str]) -> str:
    found = sorted((-images, label) for label, images in enumerate(counts) if images and label != at)
    return ", ".join(f"{labels[label]} {-images:,}" for images, label in found)


def _cells(own: Answers) -> list[dict[str, Any]]:
    labels = _axis_labels(own.labels)
    return [
        {
            "truth": labels[truth],
            "answer": labels[answer],
            "images": images,
            "share": round(images / (sum(counts) or 1), 4),
        }
        for truth, counts in enumerate(own.confusion)
        for answer, images in enumerate(counts)
        if images
    ]


def _spec(names: Sequence[str]) -> dict[str, Any]:
    """Of all matrices, without their cells."""
    import altair

    labels = _axis_labels(names)
    limit = altair.Scale(domain=labels)
    angle = 0 if max(map(len, labels), default=0) <= _UPRIGHT_LETTERS else -90
    across = altair.Axis(title="answer", labelAngle=angle, labelOverlap=angle == 0, labelLimit=140, orient="top")
    base = altair.Chart(named("cells")).encode(
        x=altair.X("answer:N", sort=None, scale=limit, axis=across),
        y=altair.Y("truth:N", sort=None, scale=limit, axis=altair.Axis(title="truth")),
        tooltip=[
            altair.Tooltip("truth:N"),
            altair.Tooltip("answer:N"),
            altair.Tooltip("images:Q"),
            altair.Tooltip("share:Q", title="of the label", format=".1%"),
        ],
    )
    cells = base.mark_rect(stroke="@surface").encode(
        color=altair.Color(
            "share:Q",
            scale=altair.Scale(domain=[0, 1], range=["@heat_low", "@heat_high"]),
            legend=None,
        )
    )
    color = altair.condition("datum.share > 0.5", altair.value("@surface"), altair.value("@ink"))
    opacity = altair.ExprRef(expr=f"width < {len(labels)} * 22 ? 0 : 1")
    figures = base.mark_text(opacity=opacity).encode(text=altair.Text("images:Q"), color=color)
    layers = [cells, figures] if len(labels) <= _MOST_LABELS_WITH_FIGURES else [cells]
    spec = to_spec(altair.LayerChart(layer=layers, height=min(_CELL * len(labels), 640)))
    return {**spec, "usermeta": {MOST_WIDTH: 180 + 2 * _CELL * len(labels)}}


def _axis_labels(labels: Sequence[str]) -> list[str]:
    """Short and distinct."""
    short = [plain(label) for label in labels]
    short = [label if len(label) <= _MOST_LETTERS else f"{label[: _MOST_LETTERS - 1]}…" for label in short]
    return [label if short.count(label) == 1 else f"{at + 1} {label}" for at, label in enumerate(short)]
