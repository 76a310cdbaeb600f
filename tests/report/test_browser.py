"""The pages in a real browser: what they show, ask for, and run."""

from pathlib import Path
from typing import Any

import pytest
from chromium import Browser
from shapes import HOSTILE

SEARCH = "document.getElementById('sample-search')"
A4 = 718  # CSS pixels between margins of one centimetre
SHOWN = "[...document.querySelectorAll('article.sample')].filter(s => s.checkVisibility()).length"


@pytest.mark.parametrize("kind", ["report", "comparison", "sweep"])
@pytest.mark.parametrize("how", [{}, {"width": 375, "dark": True}], ids=["desk", "phone"])
def test_a_page_renders_without_complaint_request_or_sideways_scroll(
    browser: Browser, pages: dict[str, Path], kind: str, how: dict[str, Any]
) -> None:
    tab = browser.open(pages[kind], **how)
    assert tab.value("document.querySelectorAll('figure svg path').length") > 0
    assert tab.requests() == [pages[kind].as_uri()]
    # everything folded is opened: it must fit as well
    tab.value("document.querySelectorAll('details').forEach(part => { part.open = true })")
    assert tab.value("document.documentElement.scrollWidth") == how.get("width", 1200)
    assert tab.complaints() == []


@pytest.mark.parametrize("kind", ["report", "comparison", "sweep"])
def test_on_paper_no_table_is_cut_off_at_the_margin(
    browser: Browser, pages: dict[str, Path], kind: str
) -> None:
    tab = browser.open(pages[kind], width=A4)
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.value("document.querySelectorAll('.wide table').length") > 0
    cut = "[...document.querySelectorAll('.wide')].filter(w => w.scrollWidth > w.clientWidth)"
    assert tab.value(f"{cut}.map(w => w.innerText.slice(0, 40))") == []
    assert tab.value("getComputedStyle(document.querySelector('.wide')).overflowX") == "visible"


def test_text_of_models_runs_nothing_and_is_read_as_it_was_written(
    browser: Browser, pages: dict[str, Path]
) -> None:
    tab = browser.open(pages["report"])
    assert tab.value("document.title") == "trial: RLHF report"
    texts = tab.value("[...document.querySelectorAll('.sample .text')].map(t => t.textContent)")
    assert texts.count(HOSTILE) == 2
    assert tab.value("document.images.length") == 0
    assert tab.value("document.scripts.length - document.querySelectorAll('figure').length") == 1
    assert tab.complaints() == []


def test_a_script_that_is_not_the_pages_own_does_not_run(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    html = pages["report"].read_text()
    forged = tmp_path / "forged.html"
    forged.write_text(html.replace("</main>", "</main><script>window.ran = 1</script>"))
    tab = browser.open(forged)
    assert tab.value("typeof window.ran") == "undefined"
    assert "Content Security Policy" in str(tab.complaints())


def test_samples_are_searched_and_filtered(browser: Browser, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["report"])
    change = "new Event('input', {bubbles: true})"
    assert tab.value(SHOWN) == 6
    tab.value(f"{SEARCH}.value = 'NEEDLE'; {SEARCH}.dispatchEvent({change})")
    assert tab.value(SHOWN) == 1
    assert tab.value("document.getElementById('sample-count').textContent") == "1 of 12"
    tab.value(f"{SEARCH}.value = ''; {SEARCH}.dispatchEvent({change})")
    chosen = "document.getElementById('sample-filter')"
    for wanted, count in (("sft", 1), ("at-odds", 1), ("ppo", 11), ("tie", 0), ("", 12)):
        tab.value(f"{chosen}.value = '{wanted}'; {chosen}.dispatchEvent({change})")
        assert tab.value(SHOWN) == count


def test_a_page_too_wide_for_a_phone_would_be_seen(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    wide = tmp_path / "wide.html"
    html = pages["report"].read_text()
    wide.write_text(html.replace("</main>", "<p style='width: 500px'>wide</p></main>"))
    tab = browser.open(wide, width=375)
    assert tab.value("document.documentElement.scrollWidth") > 375


def test_the_pointer_reads_values_out_of_a_plot(browser: Browser, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["report"])
    box = tab.value(
        "(() => { const f = [...document.querySelectorAll('#curves figure')][0]; "
        "f.scrollIntoView({block: 'center'}); const b = f.querySelector('svg')"
        ".getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2] })()"
    )
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    readout = "document.querySelector('#curves figure .readout')"
    assert tab.value(f"{readout}.checkVisibility()")
    assert tab.value(f"{readout}.textContent") in {"at 640: 1.6", "at 768: 1.5"}
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert not tab.value(f"{readout}.checkVisibility()")


def test_without_scripts_everything_can_still_be_read(
    browser: Browser, pages: dict[str, Path]
) -> None:
    tab = browser.open(pages["report"], script=False)
    assert not tab.value("document.querySelector('.tools').checkVisibility()")
    tab.value("document.querySelectorAll('details').forEach(part => { part.open = true })")
    assert tab.value(SHOWN) == 12


def test_light_and_dark_differ_and_both_have_contrast(
    browser: Browser, pages: dict[str, Path]
) -> None:
    colour = "getComputedStyle(document.body).{}.match(/\\d+/g).map(Number)"
    sums = {}
    for dark in (False, True):
        tab = browser.open(pages["report"], dark=dark)
        sums[dark] = [sum(tab.value(colour.format(name))) for name in ("backgroundColor", "color")]
    assert sums[False][0] - sums[False][1] > 500
    assert sums[True][1] - sums[True][0] > 500
