"""Chromium without a window, and pages of made-up studies in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from page_samples import HOSTILE, make_source
from playwright.sync_api import Browser, Page, sync_playwright

from liteship.report.html.page import render_page
from liteship.report.html.scripts import ScriptBundle

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@dataclass
class Opened:
    """A page in the browser, and what happened in it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stopped: dict[str, str | None] = field(default_factory=dict)

    def draw_all(self) -> None:
        """Scroll through the whole page, so that every chart is drawn that is not folded away."""
        self.page.evaluate("document.querySelectorAll('.plot').forEach(p => p.scrollIntoView())")
        for plot in self.page.locator(".plot").all():
            if plot.is_visible():
                plot.scroll_into_view_if_needed()
                self.page.wait_for_function("p => p.dataset.drawn || p.dataset.failed", arg=plot.element_handle())


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("not run: no Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages: of a usual study, of one with hostile names, of an emulated machine."""
    folder = tmp_path_factory.mktemp("pages")
    bundle = ScriptBundle(folder)
    sources = {
        "usual": make_source(folder / "usual"),
        "hostile": make_source(folder / "hostile", HOSTILE),
        "emulated": make_source(folder / "emulated", target="emulated"),
    }
    paths = {}
    for name, source in sources.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(render_page(source, bundle.text), encoding="utf-8")
    return paths


@pytest.fixture
def open_page(browser: Browser, files: dict[str, Path]) -> Iterator[Callable[..., Opened]]:
    """Opens one of the pages; nothing may leave it."""
    contexts = []

    def open_it(name: str = "usual", **options: Any) -> Opened:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("requestfailed", lambda request: opened.stopped.update({request.url: request.failure}))
        opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.page.on(
            "console", lambda message: opened.errors.append(message.text) if message.type == "error" else None
        )
        opened.page.route("**/*", lambda route: route.continue_() if _is_local(route.request.url) else route.abort())
        opened.page.goto(files[name].as_uri())
        return opened

    yield open_it
    for context in contexts:
        context.close()


def _is_local(url: str) -> bool:
    return url.startswith(("file:", "data:"))
