"""The pages in a real browser: what they show, ask for, and run."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.report.loaded_page import LoadedPage
from tests.report.shapes import HOSTILE

SEARCH = "document.getElementById('sample-search')"
A4 = 718  # CSS pixels between margins of one centimetre
SHOWN = "[...document.querySelectorAll('article.sample')].filter(s => s.checkVisibility()).length"


@pytest.mark.parametrize("kind", ["report", "comparison", "sweep"])
@pytest.mark.parametrize("options", [{}, {"width": 375, "dark": True}], ids=["desk", "phone"])
def test_a_page_renders_without_message_request_or_sideways_scroll(
    browser: Browser, pages: dict[str, Path], kind: str, options: dict[str, Any]
) -> None:
    loaded = LoadedPage(browser, pages[kind], **options)
    assert loaded.value("document.querySelectorAll('figure svg path').length") > 0
    assert loaded.requests == [pages[kind].as_uri()]
    # everything folded is opened: it must fit as well
    loaded.value("document.querySelectorAll('details').forEach(part => { part.open = true })")
    assert loaded.value("document.documentElement.scrollWidth") == options.get("width", 1200)
    assert loaded.messages == []


@pytest.mark.parametrize("kind", ["report", "comparison", "sweep"])
def test_on_paper_no_table_is_cut_off_at_the_margin(
    browser: Browser, pages: dict[str, Path], kind: str
) -> None:
    loaded = LoadedPage(browser, pages[kind], width=A4)
    loaded.page.emulate_media(media="print")
    assert loaded.value("document.querySelectorAll('.wide table').length") > 0
    cut = "[...document.querySelectorAll('.wide')].filter(w => w.scrollWidth > w.clientWidth)"
    assert loaded.value(f"{cut}.map(w => w.innerText.slice(0, 40))") == []
    assert loaded.value("getComputedStyle(document.querySelector('.wide')).overflowX") == "visible"


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)], ids=["desk", "phone"])
def test_the_first_screen_has_verdict_tiles_chart_and_a_sample(
    browser: Browser, pages: dict[str, Path], width: int, height: int
) -> None:
    loaded = LoadedPage(browser, pages["report"], width=width, height=height)
    boxes = loaded.value(
        "[...document.querySelectorAll('.verdict, .tile, .lead figure, .lead .pair')]"
        ".map(part => part.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"
    )
    assert len(boxes) == 7
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 < top < bottom <= height
    assert loaded.value("document.documentElement.scrollWidth") == width
    drawn = "[...document.querySelectorAll('.lead svg')].filter(p => p.checkVisibility()).length"
    assert loaded.value(drawn) == 1


@pytest.mark.parametrize("kind", ["report", "comparison", "sweep"])
def test_every_chart_has_axis_titles(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    loaded = LoadedPage(browser, pages[kind])
    titles = loaded.value(
        "[...document.querySelectorAll('figure')].map(figure => "
        "[...figure.querySelectorAll('.axis')].map(axis => axis.textContent.trim()))"
    )
    assert titles
    assert all(len(axes) == 2 and all(axes) for axes in titles)


@pytest.mark.parametrize("width", [1280, 390])
def test_contents_stay_in_view_and_lead_to_their_sections(
    browser: Browser, pages: dict[str, Path], width: int
) -> None:
    loaded = LoadedPage(browser, pages["report"], width=width)
    links = loaded.value("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert {"cautions", "three-samples", "run-at-a-glance", "cost", "provenance"} <= set(links)
    ids = loaded.value("[...document.querySelectorAll('section[id]')].map(part => part.id)")
    assert [anchor for anchor in links if anchor not in ids] == []
    loaded.page.click("nav a[href='#cost']")
    top = loaded.value("document.getElementById('cost').getBoundingClientRect().top")
    nav = loaded.value(
        "(b => [b.top, b.bottom])(document.querySelector('nav ol').getBoundingClientRect())"
    )
    assert nav[0] >= 0
    assert (0 if width > 1000 else nav[1]) <= top < 100


def test_print_is_not_smaller_than_its_full_size(browser: Browser, pages: dict[str, Path]) -> None:
    loaded = LoadedPage(browser, pages["sweep"], width=A4)
    loaded.page.emulate_media(media="print")
    size = "Math.min(...[...document.querySelectorAll('td, th')].map({}))"
    assert loaded.value(size.format("t => parseFloat(getComputedStyle(t).fontSize)")) >= 11


def test_text_of_models_runs_nothing_and_is_read_as_it_was_written(
    browser: Browser, pages: dict[str, Path]
) -> None:
    loaded = LoadedPage(browser, pages["report"])
    assert loaded.value("document.title") == "trial: RLHF report"
    texts = loaded.value("[...document.querySelectorAll('.sample .text')].map(t => t.textContent)")
    assert texts.count(HOSTILE) == 2
    assert loaded.value("document.images.length") == 0
    assert loaded.value("document.scripts.length - document.querySelectorAll('figure').length") == 1
    assert loaded.messages == []


def test_a_script_that_is_not_the_pages_own_does_not_run(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    html = pages["report"].read_text()
    forged = tmp_path / "forged.html"
    forged.write_text(html.replace("</main>", "</main><script>window.ran = 1</script>"))
    loaded = LoadedPage(browser, forged)
    assert loaded.value("typeof window.ran") == "undefined"
    assert "Content Security Policy" in str(loaded.messages)


def test_samples_are_searched_and_filtered(browser: Browser, pages: dict[str, Path]) -> None:
    loaded = LoadedPage(browser, pages["report"])
    change = "new Event('input', {bubbles: true})"
    assert loaded.value(SHOWN) == 6
    loaded.value(f"{SEARCH}.value = 'NEEDLE'; {SEARCH}.dispatchEvent({change})")
    assert loaded.value(SHOWN) == 1
    assert loaded.value("document.getElementById('sample-count').textContent") == "1 of 12"
    loaded.value(f"{SEARCH}.value = ''; {SEARCH}.dispatchEvent({change})")
    chosen = "document.getElementById('sample-filter')"
    for choice, count in (("sft", 1), ("at-odds", 1), ("ppo", 11), ("tie", 0), ("", 12)):
        loaded.value(f"{chosen}.value = '{choice}'; {chosen}.dispatchEvent({change})")
        assert loaded.value(SHOWN) == count


def test_a_page_too_wide_for_a_phone_would_be_seen(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    wide = tmp_path / "wide.html"
    html = pages["report"].read_text()
    wide.write_text(html.replace("</main>", "<p style='width: 500px'>wide</p></main>"))
    loaded = LoadedPage(browser, wide, width=375)
    assert loaded.value("document.documentElement.scrollWidth") > 375


def test_the_pointer_reads_values_out_of_a_plot(browser: Browser, pages: dict[str, Path]) -> None:
    loaded = LoadedPage(browser, pages["report"])
    box = loaded.value(
        "(() => { const f = [...document.querySelectorAll('#curves figure')][0]; "
        "f.scrollIntoView({block: 'center'}); const b = f.querySelector('svg')"
        ".getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2] })()"
    )
    loaded.page.mouse.move(box[0], box[1])
    readout = "document.querySelector('#curves figure .readout')"
    assert loaded.value(f"{readout}.checkVisibility()")
    assert loaded.value(f"{readout}.textContent") in {"at 640: 1.6", "at 768: 1.5"}
    loaded.page.mouse.move(1, 1)
    assert not loaded.value(f"{readout}.checkVisibility()")


def test_without_scripts_everything_can_still_be_read(
    browser: Browser, pages: dict[str, Path]
) -> None:
    loaded = LoadedPage(browser, pages["report"], script=False)
    assert not loaded.value("document.querySelector('.tools').checkVisibility()")
    loaded.value("document.querySelectorAll('details').forEach(part => { part.open = true })")
    assert loaded.value(SHOWN) == 12


def test_light_and_dark_differ_and_both_have_contrast(
    browser: Browser, pages: dict[str, Path]
) -> None:
    colour = "getComputedStyle(document.body).{}.match(/\\d+/g).map(Number)"
    sums = {}
    for dark in (False, True):
        loaded = LoadedPage(browser, pages["report"], dark=dark)
        sums[dark] = [
            sum(loaded.value(colour.format(name))) for name in ("backgroundColor", "color")
        ]
    assert sums[False][0] - sums[False][1] > 500
    assert sums[True][1] - sums[True][0] > 500
