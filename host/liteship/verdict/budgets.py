"""What a model may cost: budgets from options and from a file, checked together.

A budget that stands in both must be the same in both. The file is TOML that a person writes; what reads and checks it
is loaded only where there is one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liteship.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFERENCES = ("accuracy", "latency", "size")
PERCENTILES = (50, 90)
DEFAULT_PERCENTILE = 90
_RATIOS = ("max_drop", "min_accuracy")
_AMOUNTS = ("max_latency_ms", "max_size_mib", "max_gzip_mib", "max_memory_mib")


class BudgetError(UsageError):
    """A budget that is none, or budgets that contradict each other."""


@dataclass(frozen=True)
class Budgets:
    """What is asked of a model; None is not asked.

    Args:
        max_latency_ms: Of one invocation, at the percentile, in ms.
        percentile: 50 (the median) or 90; None is `DEFAULT_PERCENTILE` for the budget, and the median without one.
        max_drop: Accuracy that may be lost against the baseline on the same images, 0 to 1.
        min_accuracy: Share of images classified correctly, 0 to 1.
        max_size_mib: Of the file, in MiB.
        max_gzip_mib: Of the file after gzip -9, in MiB.
        max_memory_mib: Largest resident set of its processes, in MiB.
        prefer: Which figure decides between models that keep to every budget; see `preferred`.
        certain: Whether the bounds of latency and accuracy must keep to their budgets, not only the figures.
    """

    max_latency_ms: float | None = None
    percentile: int | None = None
    max_drop: float | None = None
    min_accuracy: float | None = None
    max_size_mib: float | None = None
    max_gzip_mib: float | None = None
    max_memory_mib: float | None = None
    prefer: str | None = None
    certain: bool | None = None

    @property
    def preferred(self) -> str:
        """As asked; else accuracy where latency, size or memory is limited and accuracy is not, else latency."""
        if self.prefer is not None:
            return self.prefer
        is_accuracy_asked = self.max_drop is not None or self.min_accuracy is not None
        return "accuracy" if self.limits(_AMOUNTS) and not is_accuracy_asked else "latency"

    def limits(self, names: tuple[str, ...] = (*_AMOUNTS, *_RATIOS)) -> dict[str, float]:
        """The budgets that are asked for, by name."""
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def option_name(name: str) -> str:
    """The option of a budget."""
    return f"--{name.replace('_', '-')}"


def join_budgets(options: Budgets, path: Path | None) -> Budgets:
    """The budgets of the command line and of a file together.

    Args:
        options: What the command line says.
        path: Of a TOML file with schema_version = 1 and the fields of `Budgets`; None without one.

    Raises:
        BudgetError: one of them is out of its range, has another value in both, or cannot be met whatever is measured;
            the file cannot be read, is not TOML, or has another key or kind of value.
    """
    from_file = Budgets() if path is None else _read_budgets(path)
    joined: dict[str, Any] = {}
    for field in dataclasses.fields(Budgets):
        option, written = getattr(options, field.name), getattr(from_file, field.name)
        if option is not None and written is not None and option != written:
            raise BudgetError(
                f"{option_name(field.name)} and {field.name} in {path}: one value is required. "
                f"Received: {_shown(option)} and {_shown(written)}.",
                "Leave out one of them.",
            )
        joined[field.name] = written if option is None else option
        source = option_name(field.name) if option is not None or path is None else f"{path}: {field.name}"
        _check_range(field.name, joined[field.name], source)
    budgets = Budgets(**joined)
    _check_together(budgets, path)
    return budgets


def _check_range(name: str, value: Any, source: str) -> None:
    if value is None:
        return
    problem = None
    if name in _RATIOS and not 0 <= value <= 1:
        problem = "a ratio from 0 to 1"
    elif name in _AMOUNTS and not (value > 0 and math.isfinite(value)):
        problem = f"a number of {'ms' if name.endswith('_ms') else 'MiB'} above 0"
    elif name == "percentile" and value not in PERCENTILES:
        problem = "50 or 90"
    elif name == "prefer" and value not in PREFERENCES:
        raise BudgetError(
            f"{source}: one of {', '.join(PREFERENCES)} is required. Received: {_shown(value)}.",
            did_you_mean(value, PREFERENCES),
        )
    if problem:
        raise BudgetError(f"{source}: {problem} is required. Received: {_shown(value)}.")


def _check_together(budgets: Budgets, path: Path | None) -> None:
    """What means nothing without another budget, and what no measurement can meet."""
    where = f" or in {path}" if path else ""
    if budgets.percentile is not None and budgets.max_latency_ms is None:
        raise BudgetError(
            f"--percentile: a latency budget (--max-latency-ms{where}) beside it is required. Received: none.",
        )
    if budgets.certain and not budgets.limits():
        raise BudgetError(f"--certain: a budget that must be kept to{where} is required. Received: none.")
    if budgets.certain and budgets.min_accuracy == 1:
        raise BudgetError(
            "min_accuracy below 1 beside certain is required. Received: 1.",
            "The lower bound of an accuracy is below 1 however many images are right.",
        )


def _read_budgets(path: Path) -> Budgets:
    import tomllib

    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as exc:
        raise BudgetError(f"{path}: a readable file of budgets is required. Received: {exc.strerror}.") from exc
    except (ValueError, RecursionError) as exc:
        raise BudgetError(f"{path}: valid TOML is required. Received: {exc}.") from exc
    return _check_file(values, path)


def _check_file(values: dict[str, Any], path: Path) -> Budgets:
    """Kinds and names, by pydantic; ranges are checked with the options'."""
    from typing import Literal

    from pydantic import ConfigDict, ValidationError, create_model

    kinds: dict[str, Any] = {field.name: (_kind(field.name) | None, None) for field in dataclasses.fields(Budgets)}
    model = create_model(
        "BudgetsFile",
        __config__=ConfigDict(strict=True, extra="forbid"),
        schema_version=(Literal[1], ...),
        **kinds,
    )
    try:
        read = model.model_validate(values).model_dump(exclude={"schema_version"})
    except ValidationError as exc:
        # A mistyped key may also leave another one missing: it comes first.
        errors = sorted(exc.errors(include_url=False), key=lambda error: error["type"] != "extra_forbidden")
        raise _file_error(errors[0], path) from exc
    return Budgets(**read)


def _kind(name: str) -> type[Any]:
    known: dict[str, type[Any]] = {"percentile": int, "prefer": str, "certain": bool}
    return known.get(name, float)


def _file_error(error: ErrorDetails, path: Path) -> BudgetError:
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        known = ["schema_version", *(field.name for field in dataclasses.fields(Budgets))]
        hint = did_you_mean(name, known) or f"Known keys: {', '.join(known)}."
        return BudgetError(f"{path}: a known key is required. Received: {_shown(name)}.", hint)
    words = {float: "a number", int: "50 or 90", str: f"one of {', '.join(PREFERENCES)}", bool: "true or false"}
    required = "1" if name == "schema_version" else words[_kind(name)]
    received = "nothing" if error["type"] == "missing" else _shown(error["input"])
    return BudgetError(f"{path}: {name}: {required} is required. Received: {received}.")


def _shown(value: object) -> str:
    """As TOML and the command line write it, cut where it is long."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
