"""The pictures of a report's page in docs/images, taken of the made-up study in Chromium without a window.

    python benchmarks/report_pictures.py docs/images

Writes report-light.png and report-dark.png (1440 pixels wide) and report-phone.png (390 pixels wide).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from made_up_study import STUDY, write_study
from playwright.sync_api import Browser, Page, sync_playwright

from liteship.report.html.page import Source, render_page
from liteship.report.html.scripts import ScriptBundle
from liteship.report.rows import build_comparison
from liteship.report.store import LATEST, find_report, read_report
from liteship.verdict.shipping import default_verdict

_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
_COLOR_STEP = 5  # edges of letters in fewer shades: a quarter smaller


def make_page(folder: Path) -> Path:
    """The page of the made-up study."""
    write_study(folder / "models")
    file = find_report(folder / "models", LATEST, STUDY)
    manifest, report = read_report(file)
    comparison = build_comparison(manifest, report)
    verdict = default_verdict(comparison)
    source = Source(manifest, report, comparison, file.study, verdict.sentences, verdict.winner)
    path = folder / "page.html"
    path.write_text(render_page(source, ScriptBundle(folder).text), encoding="utf-8")
    return path


def open_page(browser: Browser, path: Path, width: int, scheme: str) -> Page:
    """The page with all its visible charts drawn."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(path.as_uri())
    for plot in page.locator(".plot").all():
        if plot.is_visible():
            plot.scroll_into_view_if_needed()
            page.wait_for_function("plot => plot.dataset.drawn", arg=plot.element_handle())
    page.evaluate("scrollTo(0, 0)")
    return page


def take(page: Page, path: Path, top: float, height: float) -> None:
    """A part of the page in its whole width."""
    width = page.viewport_size["width"]
    content = page.screenshot(full_page=True, clip={"x": 0, "y": top, "width": width, "height": height})
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    pixels = np.round(pixels / _COLOR_STEP).astype(np.uint8) * _COLOR_STEP
    cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def top_of(page: Page, name: str) -> float:
    """Where a section begins."""
    return float(
        page.evaluate(f"document.getElementById('{name}').parentElement.getBoundingClientRect().top + scrollY")
    )


def main() -> None:
    """Take all of them."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        path = make_page(Path(temporary))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_FLAGS)
        page = open_page(browser, path, 1440, "light")
        take(page, folder / "report-light.png", 0, top_of(page, "sizes"))
        page = open_page(browser, path, 1440, "dark")
        start = top_of(page, "trade-off") - 16
        take(page, folder / "report-dark.png", start, top_of(page, "training") - start)
        page = open_page(browser, path, 390, "light")
        take(page, folder / "report-phone.png", 0, 844 * 2)
        browser.close()


if __name__ == "__main__":
    main()
