import re
import xml.etree.ElementTree as ET

import pytest

from rlhfctl.report.curves import Line, Plot
from rlhfctl.report.plots import svg

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
