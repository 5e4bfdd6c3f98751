"""Training and pruning: loss and accuracy of every epoch of every model, as training kept them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from liteship.report.charts.chart import Chart, Section, Table, named, to_spec
from liteship.report.charts.colors import SERIES
from liteship.report.text import MISSING, percent, plain

_HEIGHT = 240
_MOST_TICKS = 12
_BASELINE = "none"
_TRAINING, _VALIDATION = "training", "validation"
_FIELDS = ("loss", "accuracy", "validation_accuracy")

Epoch = dict[str, Any]


def training_section(study: Path) -> Section:
    """The curves; sentences where files are missing or hold none."""
    epochs: list[Epoch] = []
    sentences: list[str] = []
    files = sorted((study / "keras").glob("*.json"), key=lambda path: (not path.name.startswith(f"{_BASELINE}."), path))
    if not files:
        sentences.append("There is no file of a training here: the models were imported, or the study was moved.")
    for path in files:
        name = plain(path.name.partition(".")[0])
        try:
            found = _epochs(name, json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
            sentences.append(f"{plain(path.name)}: its history cannot be read ({plain(str(exc))}).")
            continue
        if not found:
            sentences.append(f"{name}: not trained.")
        epochs += found
    return Section("training", "Training and pruning", _charts(epochs), tuple(sentences))


def _epochs(name: str, facts: Any) -> list[Epoch]:
    """One dictionary for each epoch, from 1; what is no number is None.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: the file holds something else.
    """
    return [
        {"model": name, "epoch": number, **{field: _number(epoch.get(field)) for field in _FIELDS}}
        for number, epoch in enumerate(facts["history"], start=1)
    ]


def _number(value: Any) -> float | None:
    """A finite number; JSON of Python may hold NaN."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _charts(epochs: Sequence[Epoch]) -> tuple[Chart, ...]:
    if not epochs:
        return ()
    accuracies = [
        {"model": epoch["model"], "epoch": epoch["epoch"], "of": of, "value": epoch[field]}
        for epoch in epochs
        for of, field in ((_TRAINING, "accuracy"), (_VALIDATION, "validation_accuracy"))
        if epoch[field] is not None
    ]
    losses = [
        {"model": epoch["model"], "epoch": epoch["epoch"], "of": _TRAINING, "value": epoch["loss"]}
        for epoch in epochs
        if epoch["loss"] is not None
    ]
    models = list(dict.fromkeys(epoch["model"] for epoch in epochs))
    charts = []
    if accuracies:
        spec = _spec(accuracies, models, "accuracy", ".1%", ".0%")
        summary = f"Accuracy of {len(models)} models on training and validation images, epoch by epoch."
        table = _table(epochs, ("accuracy", "validation_accuracy"))
        charts.append(Chart("training-accuracy", "Accuracy by epoch", summary, spec, table))
    if losses:
        spec = _spec(losses, models, "training loss", ".4~f", "~g")
        summary = f"Training loss of {len(models)} models, epoch by epoch."
        charts.append(Chart("training-loss", "Loss by epoch", summary, spec, _table(epochs, ("loss",))))
    return tuple(charts)


def _spec(
    values: Sequence[Mapping[str, Any]], models: Sequence[str], title: str, tip: str, ticks: str
) -> dict[str, Any]:
    import altair

    colors = altair.Scale(domain=list(models), range=[SERIES[at % len(SERIES)] for at in range(len(models))])
    base = altair.Chart(named("epochs")).encode(
        x=altair.X(
            "epoch:Q",
            title="epoch",
            scale=altair.Scale(nice=False, zero=False, padding=8),
            axis=altair.Axis(format="d", values=_ticks(values), grid=False),
        ),
        y=altair.Y("value:Q", title=title, scale=altair.Scale(zero=False, nice=True), axis=altair.Axis(format=ticks)),
        color=altair.Color("model:N", scale=colors, legend=altair.Legend(title=None, orient="top")),
        detail=altair.Detail("of:N"),
        tooltip=[
            altair.Tooltip("model:N"),
            altair.Tooltip("epoch:Q"),
            altair.Tooltip("of:N"),
            altair.Tooltip("value:Q", title=title, format=tip),
        ],
    )
    several = len({value["of"] for value in values}) > 1
    dashes = altair.StrokeDash(
        "of:N",
        scale=altair.Scale(domain=[_VALIDATION, _TRAINING], range=[[1, 0], [4, 3]]),
        legend=altair.Legend(title=None, orient="top"),
    )
    layers = [
        base.mark_line(strokeWidth=1.8).encode(strokeDash=dashes) if several else base.mark_line(strokeWidth=1.8),
        base.mark_point(filled=True, size=26, opacity=1),
    ]
    return to_spec(altair.LayerChart(layer=layers, height=_HEIGHT), epochs=values)


def _ticks(values: Sequence[Mapping[str, Any]]) -> list[int]:
    """Whole epochs, not too many."""
    last = max(value["epoch"] for value in values)
    return list(range(1, last + 1, -(-last // _MOST_TICKS)))


def _table(epochs: Sequence[Epoch], fields: Sequence[str]) -> Table:
    def shown(field: str, value: float | None) -> str:
        return (MISSING if value is None else f"{value:.4f}") if field == "loss" else percent(value)

    return Table(
        ("model", "epoch", *(field.replace("_", " ") for field in fields)),
        tuple(
            (epoch["model"], str(epoch["epoch"]), *(shown(field, epoch[field]) for field in fields)) for epoch in epochs
        ),
    )
