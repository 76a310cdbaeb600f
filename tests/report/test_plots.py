import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from rlhfctl.report.curves import Line, Mark, Plot
from rlhfctl.report.plots import drawn, svg

RISE = Line("k1", tuple(map(float, range(20))), tuple(at**1.5 for at in range(20)))
FALL = Line("k3", RISE.steps, RISE.values[::-1])


def test_a_plot_is_one_element_without_ids_links_or_styles_of_its_own() -> None:
    drawn = svg(Plot("KL", (RISE, FALL)))
    assert ET.fromstring(drawn).tag == "svg"
    assert not re.search(r"\bid=|href|url\(|http|<style|<metadata|xmlns|font-family", drawn)


def test_colours_come_from_the_page() -> None:
    drawn = svg(Plot("KL", (RISE, FALL)))
    assert not re.search(r"#[0-9a-f]{6}", drawn)
    for colour in ("--line-1", "--line-2", "--muted", "--rule"):
        assert f"var({colour})" in drawn


def test_every_point_is_drawn() -> None:
    root = ET.fromstring(svg(Plot("KL", (RISE,))))
    (path,) = [p for p in root.iter("path") if "--line-1" in p.get("style", "")]
    assert len(re.findall("[ML]", path.get("d", ""))) == len(RISE.steps)


@pytest.mark.parametrize("value", [0.0, 3.0, -2.5e-7, 1e9])
def test_a_single_point_and_a_constant_can_be_drawn(value: float) -> None:
    for steps in ((5.0,), (1.0, 2.0, 3.0)):
        drawn = svg(Plot("flat", (Line("", steps, (value,) * len(steps)),)))
        assert "var(--line-1)" in drawn
        assert "nan" not in drawn.lower()


def test_small_ticks_are_written_shortly() -> None:
    line = Line("", (0.0, 1.0), (0.0, 1.5e-4))
    ticks = [text.text for text in ET.fromstring(svg(Plot("", (line,)))).iter("text")]
    assert "5e−5" in ticks


def test_the_same_points_give_the_same_bytes() -> None:
    assert svg(Plot("KL", (RISE,))) == svg(Plot("KL", (RISE,)))


def test_points_are_dots_on_their_line() -> None:
    root = ET.fromstring(svg(Plot("KL", (replace(RISE, style="points"),))))
    paths = [path for path in root.iter("path") if "--line-1" in path.get("style", "")]
    assert len(paths) == 2


def test_marks_are_labelled_above_the_axes_and_apart() -> None:
    marks = (Mark(10.0, "best"), Mark(12.0, "alarm"), Mark(13.0, "alarm"))
    (picture,) = drawn(Plot("KL", (RISE,), marks=marks)).pictures
    best, alarm = picture.labels
    assert (best.text, alarm.text) == ("best checkpoint", "alarm")
    assert best.top < alarm.top < 100 * picture.frame[1]
    assert "var(--good)" in picture.svg
    assert picture.svg.count("var(--bad)") == 2


def test_names_stand_beside_their_dots_without_overlap() -> None:
    dots = Line("", (1.0, 1.1, 5.0), (1.0, 1.0, 0.0), style="dots", names=("<b>", "0.1", "0.2"))
    (picture,) = drawn(Plot("Gold", (dots,), whole_steps=False)).pictures
    assert "<b>" not in picture.svg
    at = {label.text: label for label in picture.labels}
    assert at["0.1"].top - at["<b>"].top >= 7
    assert at["0.2"].kind == "dot before"


def test_the_first_chart_has_a_picture_for_a_desk_and_one_for_a_phone() -> None:
    desk, phone = drawn(Plot("KL", (RISE,), size="first")).pictures
    assert desk.svg != phone.svg
    assert len(drawn(Plot("KL", (RISE,), size="first")).points["frames"]) == 2
