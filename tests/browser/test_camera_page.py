"""The camera's page in a real browser: a session with a real model and a made-up source behind it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from camera_page import TOKEN
from release_samples import good_artefact
from session_samples import Endless, Running, add_release, other_model

from liteship_agent import lock
from liteship_agent.camera import hot_swap, session
from liteship_agent.camera.web import server as web
from liteship_agent.manifest import Manifest
from liteship_agent.records import read_record, write_record

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="not run: no playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="not run: no Chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
HOSTILE = (
    "<script>window.broken = 1</script>",
    "<img src=x onerror='window.broken = 2'> & \"quotes\" 😀 " + "x" * 200,
    "\u202eقطة سوداء\u2028\n\t",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    monkeypatch.setattr(session, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(hot_swap, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(web, "_WRONG_TOKEN_SECONDS", 0.0)
    monkeypatch.setattr(lock, "_is_camera_process", lambda pid: False)  # it is this process: no signal to it


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "board"
    add_release(folder)
    return folder


class Viewer:
    """A browser window on the page of a camera, and everything that it asked for or complained about."""

    def __init__(self, browser: playwright.Browser, camera: Running, query: str = "", **context: object) -> None:
        told = camera.until(lambda: camera.of("camera"))[0]
        self.address = f"http://127.0.0.1:{told['port']}"
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"{self.address}/{query}", wait_until="domcontentloaded")

    def text(self, selector: str, wanted: str | re.Pattern[str]) -> None:
        """Wait until an element has a text."""
        playwright.expect(self.page.locator(selector)).to_have_text(wanted, timeout=20_000)

    def colors(self, count: int) -> set[tuple[int, ...]]:
        """So many different pictures as the browser shows them, by their mean colour in steps."""
        read = """() => { const image = document.getElementById("picture");
            if (!image.naturalWidth) return null;
            const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
            const pen = canvas.getContext("2d"); pen.drawImage(image, 0, 0, 1, 1);
            return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => Math.round(value / 64)); }"""
        found: set[tuple[int, ...]] = set()
        for _ in range(2000):
            color = self.page.evaluate(read)
            found |= {tuple(color)} if color else set()
            if len(found) >= count:
                break
            self.page.wait_for_timeout(10)
        return found

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def look(browser) -> Iterator[object]:
    opened: list[Viewer] = []

    def look(camera: Running, query: str = "", **context: object) -> Viewer:
        opened.append(Viewer(browser, camera, query, **context))
        return opened[-1]

    yield look
    for viewer in opened:
        viewer.close()


def slow(*colors: int) -> Endless:
    """One colour for a while, then the next."""
    return Endless(*itertools.chain.from_iterable([color] * 100 for color in colors))


# --- what is shown ---


def test_page_shows_moving_pictures_labels_and_figures_and_asks_nobody_else(folder, look):
    with Running(folder, slow(0, 1, 2), view="web") as camera:
        viewer = look(camera)
        assert viewer.colors(3) == {(4, 0, 0), (0, 4, 0), (0, 0, 4)}
        for label in ("red", "green", "blue"):
            viewer.text("#label-text", label)
        viewer.text("#state-text", "live")
        viewer.text("#rate", re.compile(r"\d+\.\d"))
        viewer.text("#latency", re.compile(r"\d"))
        viewer.text("#card", re.compile("none-none.*sample.*ai-edge-litert", re.DOTALL))
        assert viewer.page.locator("#top li").count() == 3
        assert viewer.complaints == []
        assert {address.startswith(viewer.address + "/") for address in viewer.requests} == {True}


def test_plots_are_drawn(folder, look):
    with Running(folder, view="web") as camera:
        viewer = look(camera)
        viewer.page.wait_for_function(
            """() => { const canvas = document.getElementById("latency-plot");
                const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                const rows = new Set(); for (let i = 3; i < data.length; i += 4)
                    if (data[i]) rows.add(Math.floor(i / 4 / canvas.width));
                return rows.size > 2; }""",
            timeout=20_000,
        )


def test_any_class_name_is_text(folder, look):
    path = folder / "current" / "manifest.json"
    write_record(replace(read_record(Manifest, path), labels=HOSTILE), path)
    with Running(folder, slow(0, 1, 2), view="web") as camera:
        viewer = look(camera, viewport={"width": 390, "height": 844})
        for label in HOSTILE:
            viewer.page.wait_for_function(
                "(label) => document.getElementById('label-text').textContent === label", arg=label, timeout=20_000
            )
        assert viewer.page.evaluate("[window.broken, document.documentElement.scrollWidth]") == [None, 390]
        assert viewer.page.locator("#label script, #top script, #top img").count() == 0


def test_phone_has_all_in_its_width_and_a_large_label(folder, look):
    with Running(folder, view="web") as camera:
        viewer = look(camera, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        viewer.text("#label-text", "red")
        assert viewer.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert viewer.page.evaluate("parseFloat(getComputedStyle(document.getElementById('label')).fontSize)") >= 48
        for button in ("#pause", "#save"):
            assert viewer.page.locator(button).bounding_box()["height"] >= 44


def test_unsure_answer_is_said_to_be_one(folder, look):
    with Running(folder, view="web", threshold=1.0) as camera:
        viewer = look(camera)
        viewer.text("#label-text", "unsure")
        viewer.text("#score", re.compile(r"\d+ % at best"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_has_no_accessibility_violation(folder, look, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="not run: no axe")
    with Running(folder, view="web") as camera:
        viewer = look(camera, color_scheme=scheme, bypass_csp=True)  # only so that axe itself can be put into it
        viewer.text("#rate", re.compile(r"\d+\.\d"))
        found = axe.Axe().run(viewer.page).response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
        viewer.page.keyboard.press("?")
        found = axe.Axe().run(viewer.page).response["violations"]
        assert [one["id"] for one in found] == []


# --- what can be done ---


def test_space_pauses_the_picture_and_goes_on(folder, look):
    with Running(folder, slow(0, 1, 2), view="web") as camera:
        viewer = look(camera)
        viewer.text("#state-text", "live")
        viewer.colors(2)
        viewer.page.keyboard.press("Space")
        viewer.text("#state-text", "paused")
        viewer.text("#pause-text", "Go on")
        camera.until_state("paused")
        viewer.page.wait_for_timeout(300)  # what was sent before has arrived
        captured = camera.session.health()["captured"]
        assert len(viewer.colors(1)) == 1
        viewer.page.click("#pause")
        viewer.text("#state-text", "live")
        assert len(viewer.colors(3)) == 3
        assert camera.session.health()["captured"] > captured


def test_s_saves_the_frame_and_tells_its_name(folder, look):
    with Running(folder, view="web") as camera:
        viewer = look(camera)
        viewer.text("#label-text", "red")
        viewer.page.keyboard.press("s")
        viewer.text("#said", re.compile(r"saved as frame-\d{8}T\d{6}Z-\d+\.jpg"))
        name = viewer.page.inner_text("#said").rpartition(" ")[2]
        assert json.loads((folder / "frames" / name).with_suffix(".json").read_text())["label"] == "red"


def test_folder_that_cannot_be_written_is_told_on_the_page(folder, look):
    (folder / "file").touch()
    with Running(folder, view="web", save_folder=folder / "file" / "frames") as camera:
        viewer = look(camera)
        viewer.text("#label-text", "red")
        viewer.page.click("#save")
        viewer.text("#said", re.compile("a folder with space is required. Received: Not a directory"))


def test_help_opens_and_closes_by_keyboard(folder, look):
    with Running(folder, view="web") as camera:
        viewer = look(camera)
        viewer.page.keyboard.press("?")
        playwright.expect(viewer.page.locator("#keys")).to_be_visible()
        viewer.page.keyboard.press("Escape")
        playwright.expect(viewer.page.locator("#keys")).to_be_hidden()


# --- what happens meanwhile ---


def test_hot_swap_leaves_page_and_stream_as_they_are(folder, look):
    with Running(folder, slow(0, 1, 2), view="web") as camera:
        viewer = look(camera)
        viewer.text("#state-text", "live")
        viewer.page.evaluate("window.mark = 1")
        second = add_release(folder, {"none-none": other_model()}).release_id
        viewer.text("#card", re.compile(second))
        viewer.text("#said", f"now none-none of release {second}")
        assert len(viewer.colors(3)) == 3
        assert viewer.page.evaluate("window.mark") == 1
        assert [address.rpartition("/")[2] for address in viewer.requests].count("stream") == 1


def test_release_that_cannot_take_over_is_told_until_one_can(folder, look):
    with Running(folder, view="web") as camera:
        viewer = look(camera)
        viewer.text("#label-text", "red")
        add_release(folder, {"none-none": replace(good_artefact(), content=b"<b>no model</b>")})
        viewer.text("#notice", re.compile("cannot take over"))
        add_release(folder, {"none-none": other_model()})
        playwright.expect(viewer.page.locator("#notice")).to_be_hidden(timeout=20_000)


def test_measurement_is_told_and_the_picture_comes_back(folder, look):
    with Running(folder, slow(0, 1, 2), view="web") as camera:
        viewer = look(camera)
        viewer.text("#state-text", "live")
        with lock.wanted(folder):
            camera.wishes.yield_target()
            viewer.text("#state-text", "measuring")
            viewer.text("#veil", re.compile("the camera comes back when the benchmark is done"))
            assert viewer.page.is_disabled("#pause")
        viewer.text("#state-text", "live")
        playwright.expect(viewer.page.locator("#veil")).to_be_hidden()
        assert len(viewer.colors(3)) == 3


def test_page_comes_back_when_the_camera_does(folder, look):
    with Running(folder, slow(0, 1, 2), view="web") as camera:
        viewer = look(camera)
        viewer.text("#state-text", "live")
        port = int(viewer.address.rpartition(":")[2])
        camera.session._server.close()  # as when a link is cut: nobody says that it ends
        viewer.text("#state-text", "no connection")
    with Running(folder, slow(0, 1, 2), view="web", port=port) as camera:
        viewer.text("#state-text", "live")
        assert len(viewer.colors(3)) == 3


def test_end_is_told(folder, look):
    with Running(folder, view="web") as camera:
        viewer = look(camera)
        viewer.text("#state-text", "live")
        camera.end()
        viewer.text("#state-text", "ended")
        viewer.text("#veil", re.compile("the camera has ended"))


# --- who may see it ---


def test_wrong_token_sees_nothing(folder, look):
    with Running(folder, view="web", token=TOKEN) as camera:
        viewer = look(camera, "?token=wrong-horse")
        assert "The token is missing or wrong" in viewer.page.inner_text("body")
        assert viewer.page.locator("#picture").count() == 0


def test_token_leaves_the_address_and_stays_in_a_cookie_that_no_script_reads(folder, look):
    with Running(folder, slow(0, 1, 2), view="web", token=TOKEN) as camera:
        viewer = look(camera, f"?token={TOKEN}")
        viewer.text("#state-text", "live")
        assert len(viewer.colors(2)) >= 2
        assert viewer.page.url == f"{viewer.address}/"
        assert viewer.page.evaluate("document.cookie") == ""
        viewer.page.reload(wait_until="domcontentloaded")
        viewer.text("#state-text", "live")
        viewer.page.keyboard.press("Space")
        viewer.text("#state-text", "paused")


def test_page_of_another_site_gets_neither_picture_nor_buttons(folder, look, browser):
    with Running(folder, view="web") as camera:
        viewer = look(camera)
        viewer.text("#label-text", "red")
        stranger = browser.new_context().new_page()
        stranger.route("http://evil.example/", lambda route: route.fulfill(body="<p>", content_type="text/html"))
        stranger.goto("http://evil.example/")
        tried = stranger.evaluate(
            """async (address) => {
                const image = new Image(); image.src = address + "/stream";
                const shown = await new Promise((done) => {
                    image.onload = () => done(true); image.onerror = () => done(false); });
                await fetch(address + "/pause", { method: "POST", mode: "no-cors" }).catch(() => 0);
                return shown; }""",
            viewer.address,
        )
        assert tried is False
        assert camera.wishes.shall_pause is False
        stranger.context.close()
