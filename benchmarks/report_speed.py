"""How long it takes to look at a report of 24 artefacts x 5,000 latencies, as whole commands and in a browser.

    python benchmarks/report_speed.py [RUNS]

makes the study (made_up_study.py) in a temporary folder and prints Markdown: the page on the first call, when Vega's
scripts are bundled, and on later ones; its size; when Chromium without a window first paints something of it; and the
verbs that a script uses. Every figure is the median of its runs with the slowest beside it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from made_up_study import JOB_ID, STUDY, TARGET, write_study

from liteship.cli.app import VERBS

_CODE = "import sys; from liteship.cli.app import main; main()"
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run"
)
_PAINT = "() => performance.getEntriesByType('paint').find(e => e.name === 'first-contentful-paint')?.startTime"
_GATE_CODES = (0, 4, 6)


def command_seconds(folder: Path, cache: Path, *arguments: str, codes: Sequence[int] = (0,)) -> float:
    """Wall clock time of a command in a process of its own.

    Args:
        folder: Where it is run.
        cache: Of the user.
        arguments: After `liteship`.
        codes: Exit codes that are right.
    """
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    elapsed = time.perf_counter() - start
    if done.returncode not in codes:
        raise SystemExit(f"liteship {' '.join(arguments)}: exit code {done.returncode}: {done.stderr}")
    return elapsed


def first_paints_ms(page: Path, runs: int) -> list[float]:
    """When something of the page is seen, from the start of its loading; each time in a new browser."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        for _ in range(runs):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS.split())
            tab = browser.new_page(viewport={"width": 1440, "height": 900})
            tab.goto(page.as_uri())
            found.append(float(tab.wait_for_function(_PAINT).json_value()))
            browser.close()
    return found


def line(what: str, values: Sequence[float], unit: str, goal: str) -> str:
    """A row of the table: median, slowest, goal."""
    digits = 2 if unit == "s" else 0
    shown = f"{statistics.median(values):.{digits}f} {unit} | {max(values):.{digits}f} {unit} | {len(values)}"
    return f"| {what} | {shown} | {goal} |"


def main() -> None:
    """Print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        study = write_study(folder / "models")
        where = ("--study", STUDY, "--target", TARGET)
        page = study / "reports" / TARGET / f"{JOB_ID}.html"
        html = ("report", *where, "--format", "html")
        first = [command_seconds(folder, folder / f"cache {run}", *html) for run in range(runs)]
        later = [command_seconds(folder, folder / "cache 0", *html) for _ in range(runs)]
        mebibytes = page.stat().st_size / 1e6
        print("| what | median | slowest | runs | goal |")
        print("| :-- | --: | --: | --: | --: |")
        print(line("page, first call", first, "s", "3 s"))
        print(line("page, later calls", later, "s", "3 s"))
        print(f"| size of the page | {mebibytes:.2f} MB | {mebibytes:.2f} MB | 1 | 5 MB |")
        if shutil.which("chromium"):
            print(line("first contentful paint", first_paints_ms(page, runs), "ms", "1,500 ms"))
        else:
            print("| first contentful paint | not run: no Chromium | | | 1,500 ms |")
        terminal = [command_seconds(folder, folder / "cache 0", "report", *where) for _ in range(runs)]
        print(line("table in the terminal", terminal, "s", "–"))
        if "choose" in VERBS:
            choose = ("choose", *where, "--max-latency-ms", "12", "--max-drop", "0.01")
            print(line("choose", [command_seconds(folder, folder, *choose) for _ in range(runs)], "s", "0.8 s"))
        if "gate" in VERBS:
            document = str(folder / "baseline.json")
            command_seconds(folder, folder, "report", *where, "--format", "json", "--output", document)
            gate = ("gate", document, f"{TARGET}:{JOB_ID}")
            seconds = [command_seconds(folder, folder, *gate, codes=_GATE_CODES) for _ in range(runs)]
            print(line("gate", seconds, "s", "0.8 s"))


if __name__ == "__main__":
    main()
