from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfctl.report.numbers import MINUS, MISSING, duration, fraction, number, share, signed


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (18_000, "18,000"),
        (7, "7"),
        (12345.6, "12,346"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.1234, "0.123"),
        (0.0, "0"),
        (0.00012, f"1.2e{MINUS}4"),
        (-5.75, f"{MINUS}5.75"),
        (None, MISSING),
        (float("nan"), MISSING),
        (float("inf"), MISSING),
        ("0.5", MISSING),
        (True, MISSING),
    ],
)
def test_numbers_have_about_three_significant_digits(value: Any, written: str) -> None:
    assert number(value) == written


def test_shares_have_fixed_decimals() -> None:
    assert share(0.8364) == "0.84"
    assert fraction(0.9961) == "0.996"
    assert fraction(-0.0001) == "0.000"
    assert share(None) == MISSING


def test_differences_carry_their_sign_and_keep_the_way_of_their_metrics() -> None:
    assert signed(1.234) == "+1.23"
    assert signed(-1.234) == f"{MINUS}1.23"
    assert signed(0.04, fraction) == "+0.040"
    assert signed(0.0) == "0"
    assert signed(None) == MISSING


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (7800, "2 h 10 min"), (None, MISSING)],
)
def test_durations_have_two_units(seconds: Any, written: str) -> None:
    assert duration(seconds) == written


@given(st.one_of(st.floats(), st.integers(-(10**15), 10**15)))
def test_no_figure_is_ever_written_as_nan_or_with_a_hyphen(value: float) -> None:
    for write in (number, share, fraction, signed):
        assert not {"nan", "inf", "-"} & {write(value).lower(), write(value)[:1]}
