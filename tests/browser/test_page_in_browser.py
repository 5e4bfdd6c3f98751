from __future__ import annotations

import pytest
from page_samples import BROKEN, LONG


def variants(page):
    return page.locator("#comparison tbody tr:visible th").all_inner_texts()


def test_every_chart_is_drawn_without_an_error_and_nothing_is_asked_for(open_page):
    opened = open_page()

    opened.draw_all()
    opened.page.evaluate("document.querySelectorAll('details.fold').forEach(d => { d.open = true; })")
    opened.draw_all()

    plots = opened.page.locator(".plot")
    assert plots.count() >= 12
    assert opened.page.locator(".plot[data-drawn=light] svg").count() == plots.count()
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [opened.page.url]


def test_the_policy_stops_what_tries_to_connect_or_to_run(open_page):
    opened = open_page()

    tried = """async () => {
        const image = new Image();
        const loaded = new Promise(done => {
            image.onload = () => done('loaded');
            image.onerror = () => done('stopped');
        });
        image.src = 'https://example.com/a.png';
        const script = document.createElement('script');
        script.textContent = 'window.injected = true';
        document.body.append(script);
        const fetched = await fetch('https://example.com').then(() => 'fetched', () => 'stopped');
        return [await loaded, fetched, Boolean(window.injected)];
    }"""

    assert opened.page.evaluate(tried) == ["stopped", "stopped", False]
    assert opened.stopped == {"https://example.com/a.png": "csp"}


def test_a_click_sorts_up_down_and_back(open_page):
    page = open_page().page
    before = variants(page)
    head = page.locator("#comparison th", has=page.get_by_role("button", name="size MiB"))

    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert variants(page)[0] == "magnitude50-dynamic"
    assert variants(page)[-1] == "magnitude75-int8", "a figure that does not exist comes last"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert variants(page)[0] == "none-none"
    assert variants(page)[-1] == "magnitude75-int8"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert variants(page) == before


def test_the_keyboard_sorts_too(open_page):
    page = open_page().page

    page.get_by_role("button", name="variant").focus()
    page.keyboard.press("Enter")

    assert variants(page) == sorted(variants(page))


def test_typing_filters_and_says_how_many_rows_are_left(open_page):
    page = open_page().page

    page.get_by_role("searchbox").fill("magnitude50 int8")

    assert variants(page) == ["magnitude50-int8"]
    assert page.locator("#shown").inner_text() == "1 of 6 rows"
    page.get_by_role("searchbox").fill("")
    assert len(variants(page)) == 6


def test_a_filter_that_matches_nothing_says_so_and_can_be_cleared(open_page):
    page = open_page().page
    table = page.locator("#comparison")

    page.get_by_label("failed").uncheck()
    page.get_by_role("searchbox").fill("no such name")
    assert not table.is_visible()
    assert page.get_by_text("No row has this name").is_visible()
    page.get_by_role("button", name="Show all rows").click()

    assert len(variants(page)) == 6
    assert page.get_by_label("failed").is_checked()
    assert not page.get_by_text("No row has this name").is_visible()
    assert page.locator("#shown").inner_text() == "6 of 6 rows"


def test_the_table_fits_a_desktop(open_page):
    page = open_page().page

    assert page.locator("#rows").evaluate("s => s.scrollWidth <= s.clientWidth")


def test_a_phone_shows_variant_accuracy_and_median_first_and_keeps_the_variant(open_page):
    page = open_page(viewport={"width": 390, "height": 844}).page
    heads = page.locator("#comparison thead th")

    assert [text.split()[0] for text in heads.all_inner_texts()[:3]] == ["variant", "accuracy", "median"]
    edge = page.locator("#rows").evaluate("s => s.getBoundingClientRect().right")
    assert heads.nth(2).evaluate("h => h.getBoundingClientRect().right") <= edge
    page.locator("#rows").evaluate("s => { s.scrollLeft = 500; }")
    first = page.locator("#comparison tbody th").first
    assert first.evaluate("h => h.getBoundingClientRect().left") >= 0


def test_a_phone_names_every_row_of_a_chart_in_full(open_page):
    opened = open_page(viewport={"width": 390, "height": 844})
    opened.draw_all()

    for name in ("sizes", "latencies", "blocks", "filters-filter50"):
        labels = opened.page.locator(f"[data-chart={name}] .role-axis-label text").all_text_contents()
        words = [label for label in labels if any(letter.isalpha() for letter in label)]
        assert len(words) >= 3
        assert len(set(words)) == len(words)
        assert not [word for word in words if "…" in word]
    assert opened.page.locator("[data-chart='filters-filter50'] svg").text_content().count("8/12") == 3
    letters = opened.page.locator("[data-chart=trade-off] .role-mark text").all_text_contents()
    assert "none-int8" in letters


def test_a_void_block_is_seen_on_a_phone(open_page):
    opened = open_page(viewport={"width": 390, "height": 844})
    opened.draw_all()

    widths = opened.page.locator("[data-chart=blocks] .mark-rect.role-mark path").evaluate_all(
        "all => all.map(p => p.getBoundingClientRect().width + parseFloat(p.getAttribute('stroke-width')))"
    )

    assert max(widths) >= 3
    assert min(widths) >= 1


def test_a_status_can_be_hidden(open_page):
    page = open_page().page

    page.get_by_label("failed").uncheck()
    page.get_by_label("refused").uncheck()

    assert len(variants(page)) == 4


def test_a_mark_under_the_mouse_shows_its_figures(open_page):
    opened = open_page()
    opened.draw_all()
    plot = opened.page.locator("[data-chart=trade-off]")
    plot.scroll_into_view_if_needed()

    plot.locator(".mark-symbol.role-mark path").last.hover(force=True)

    tip = opened.page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert "median ms" in tip.inner_text()
    assert "none-none" in tip.inner_text()


def test_the_theme_is_switched_in_page_and_charts_and_remembered(open_page):
    opened = open_page()
    page = opened.page
    opened.draw_all()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")

    page.get_by_role("button", name="Dark theme").click()

    page.wait_for_selector("[data-chart=confusion-1][data-drawn=dark]")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.locator("[data-chart=confusion-1] svg").get_attribute("style") is not None
    page.reload()
    assert page.get_by_role("button", name="Light theme").is_visible()


def test_the_wish_of_the_system_is_followed(open_page):
    opened = open_page(color_scheme="dark")
    opened.draw_all()

    assert opened.page.locator(".plot[data-drawn=dark]").count() > 8


def test_a_command_is_copied(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"]).page
    line = page.locator(".command code").first.inner_text()

    page.get_by_role("button", name="Copy: Measure in the same way").click()

    page.locator("#copied", has_text="The command was copied.").wait_for(state="attached")
    assert page.evaluate("navigator.clipboard.readText()") == line
    assert line.startswith("liteship bench --target pi --study usual")


def test_hostile_names_are_shown_and_do_not_run(open_page):
    opened = open_page("hostile")
    opened.draw_all()

    assert opened.page.evaluate("window.broken") is None
    shown = opened.page.locator("body").text_content()
    assert BROKEN in shown
    assert LONG in shown
    assert opened.errors == []
    assert opened.page.locator("script").count() == 4


@pytest.mark.parametrize("name", ["usual", "hostile"])
def test_a_phone_scrolls_tables_inside_the_page_and_never_the_page(open_page, name):
    opened = open_page(name, viewport={"width": 390, "height": 844})
    opened.draw_all()
    for summary in opened.page.locator("summary:visible").all():
        summary.click()

    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    scroller = opened.page.locator(".scroller", has=opened.page.locator("#comparison"))
    assert scroller.evaluate("s => s.scrollWidth > s.clientWidth")
    widths = opened.page.locator(".plot svg").evaluate_all("all => all.map(s => s.getBoundingClientRect().width)")
    assert max(widths) <= 390


def test_printing_draws_every_chart(open_page):
    page = open_page().page

    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")

    page.wait_for_function("[...document.querySelectorAll('.plot')].every(p => p.dataset.drawn)")


def test_without_scripts_the_tables_are_there_and_nothing_pretends_to_work(open_page):
    page = open_page(java_script_enabled=False).page

    assert len(variants(page)) == 6
    assert not page.locator("#theme").is_visible()
    assert not page.get_by_role("searchbox").is_visible()
    assert page.get_by_text("Charts, sorting and filters need JavaScript").is_visible()


def test_an_emulated_machine_has_no_front(open_page):
    opened = open_page("emulated")
    opened.draw_all()

    legend = opened.page.locator("[data-chart=trade-off] svg").text_content()
    assert "emulated" in legend
    assert "front" not in legend
