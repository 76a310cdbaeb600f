import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfctl.run.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, tabs\tand\nnewlines stay", "plain, tabs\tand\nnewlines stay"),
        ("\x1b[2Jgone", r"\u001b[2Jgone"),
        ("\x1b]52;c;cm0=\x07", r"\u001b]52;c;cm0=\u0007"),
        ("over\rwritten", r"over\u000dwritten"),
        ("del\x7f c1\x9b31m", r"del\u007f c1\u009b31m"),
        ("access\u202egnp.exe", r"access\u202egnp.exe"),
        ("\u2066isolate\u2069", r"\u2066isolate\u2069"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("lone \ud800", r"lone \ud800"),
        ("line\u2028separator", r"line\u2028separator"),
        ("héllo 世界 🎉 ❤️ שלום", "héllo 世界 🎉 ❤️ שלום"),
    ],
)
def test_what_is_unseen_is_spelt_out_and_the_rest_is_kept(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Lu", "Nd"])))
def test_nothing_a_terminal_acts_on_is_left(text: str) -> None:
    shown = visible(text)
    shown.encode()
    for character in shown:
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            assert character in "\n\t"
        assert unicodedata.bidirectional(character) not in {
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        }


@given(st.text())
def test_it_is_stable(text: str) -> None:
    assert visible(visible(text)) == visible(text)
