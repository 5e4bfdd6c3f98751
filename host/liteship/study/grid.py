"""In which order and in how many processes the Keras models of a study are made.

A chain is a pruned model and the quantizations that train on it. Chains need only the baseline, so that they run beside
each other where memory allows; with a largest drop of accuracy the sparsities of one [[compress]] become one chain,
which ends where too much is lost.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from liteship.data import Dataset
from liteship.errors import ConversionError
from liteship.own.contracts import Contracts
from liteship.progress import Advance, Reporter
from liteship.recipe import BASELINE, TRAINED_QUANTIZATIONS, Recipe, Variant
from liteship.study.context import Context
from liteship.study.models import Models

Chain = tuple[Variant, ...]
Problem = tuple[str, str]  # stage and reason
Problems = dict[str, Problem]  # by Keras model

_LEAST_MEMORY_BYTES = 3 * 2**30  # of a training of MobileNetV2 with 3,000 images
_PARENT_CHECK_SECONDS = 1.0


def make_models(context: Context, jobs: int | None, max_drop: float | None) -> Problems:
    """Make every Keras model that the recipe needs and that is not there yet.

    Args:
        context: Of the study.
        jobs: Processes; None takes as many as cores and memory allow.
        max_drop: A pruned model that loses more accuracy than this ends its chain; None for no end.

    Returns:
        Why a model cannot be made, or was not made any more.

    Raises:
        LiteshipError: the baseline or a recipe's settings, or a process died.
    """
    if context.own is not None and context.own.keras is None:
        return {}
    models = Models(context)
    models.make(BASELINE)
    chains = _chains(context.recipe, max_drop is not None)
    costs = [sum(models.cost(variant) for variant in chain) for chain in chains]
    count = min(jobs or _affordable_processes(), sum(cost > 0 for cost in costs))
    with context.say.task("compress, in epochs", sum(costs)) as advance:
        if count > 1:
            return _in_processes(context, chains, max_drop, count, advance)
        return _merge(make_chain(models, chain, max_drop, advance) for chain in chains)


def make_chain(models: Models, chain: Chain, max_drop: float | None, advance: Advance) -> Problems:
    """Make the models of one chain, from the least pruned on; what was made before is only looked at."""
    problems: Problems = {}
    baseline, say = models.make(BASELINE), models.context.say
    ended: Problem | None = None
    for variant in chain:
        problem = problems.get(variant.pruned) or (ended if variant.model == variant.pruned else None)
        if problem is None:
            cost = models.cost(variant)
            try:
                facts = models.make(variant)
            except ConversionError as exc:
                problem = ("compress", str(exc))
                say.say(f"{variant.model} failed: {exc}")
            else:
                advance(cost)
                drop = round(baseline.accuracy - facts.accuracy, 9)  # 0.98 - 0.96 is a little above 0.02
                if max_drop is not None and variant.model == variant.pruned and drop > max_drop:
                    text = f"{variant.model} loses {100 * drop:.1f} points of accuracy, {100 * max_drop:g} are allowed"
                    ended = ("max-drop", text)
                    say.say(f"{text}: nothing sparser is made")
        if problem is not None:
            problems[variant.model] = problem
    return problems


def _chains(recipe: Recipe, by_section: bool) -> list[Chain]:
    """Which models are made one after the other: the pruned one first, then what trains on it."""
    chains: list[Chain] = []
    for settings in recipe.compress:
        section: list[Chain] = []
        for sparsity in sorted(settings.sparsity) or (0.0,):
            pruned = Variant(settings.pruning, sparsity, "none")
            trained = [Variant(settings.pruning, sparsity, name) for name in settings.quantization]
            later = tuple(variant for variant in trained if variant.quantization in TRAINED_QUANTIZATIONS)
            section.append((pruned, *later))
        chains += [tuple(itertools.chain(*section))] if by_section else section
    return [chain for chain in chains if chain != (BASELINE,)]


def _merge(parts: Iterable[Problems]) -> Problems:
    return {model: problem for part in parts for model, problem in part.items()}


def _affordable_processes() -> int:
    """One a core, as far as memory goes for each what this process, which trained the baseline, has needed."""
    needed = max(_LEAST_MEMORY_BYTES, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), available // needed))


# --- beside each other ---


@dataclass(frozen=True)
class _Order:
    """What a process is told; all of it can be pickled."""

    recipe: Recipe
    dataset: Dataset
    folder: Path
    own_contracts: Contracts | None
    chain: Chain
    max_drop: float | None


def _in_processes(
    context: Context, chains: Sequence[Chain], max_drop: float | None, count: int, advance: Advance
) -> Problems:
    method = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    events = method.Queue()
    orders = [
        _Order(context.recipe, context.dataset, context.folder, context.own_contracts, chain, max_drop)
        for chain in chains
    ]
    pool = ProcessPoolExecutor(count, method, _begin, (events, os.getpid()))
    try:
        with _listen(events, context.say, advance):
            return _merge(pool.map(_follow, orders))
    except BrokenProcessPool as exc:
        raise ConversionError(
            f"{count} training processes that end by themselves are required. Received: one that was killed.",
            "Perhaps for lack of memory: the same command with --jobs 1 goes on.",
        ) from exc
    finally:
        for process in (pool._processes or {}).values():
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _listen(events: Any, say: Reporter, advance: Advance) -> Iterator[None]:
    """Show what the processes report."""

    def show() -> None:
        bars: dict[Any, tuple[AbstractContextManager[Advance], Advance]] = {}
        for event, key, *values in iter(events.get, None):
            if event == "say":
                say.say(key)
            elif event == "made":
                advance(key)
            elif event == "open":
                bar = say.task(*values)
                bars[key] = bar, bar.__enter__()
            elif event == "advance":
                bars[key][1](*values)
            else:
                bars.pop(key)[0].__exit__(None, None, None)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        events.put(None)
        thread.join(timeout=5)


class _Relay(Reporter):
    """Reports to the process that shows it."""

    def __init__(self, events: Any) -> None:
        super().__init__(Console(quiet=True))
        self.events = events

    def say(self, text: str) -> None:
        self.events.put(("say", text))

    @contextmanager
    def task(self, description: str, total: float | None, *, is_bytes: bool = False) -> Iterator[Advance]:
        key = (os.getpid(), description, time.monotonic_ns())
        self.events.put(("open", key, description, total))
        yield lambda amount: self.events.put(("advance", key, amount))
        self.events.put(("close", key))


_relays: list[_Relay] = []  # of a process that was begun: one


def _begin(events: Any, parent: int) -> None:
    """Prepare a process: it ends when the one that started it does."""
    _relays.append(_Relay(events))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _follow(order: _Order) -> Problems:
    (relay,) = _relays
    context = Context(order.recipe, order.dataset, order.folder, relay, order.own_contracts)
    return make_chain(Models(context), order.chain, order.max_drop, lambda amount: relay.events.put(("made", amount)))
