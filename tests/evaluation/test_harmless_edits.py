import re

import pytest

from rlhfctl.evaluation.harmless_edits import HARMLESS_EDITS

TEXT = "It's called \"blue\" here. Nobody said so 'before' the meeting of yesterday afternoon!"
EXPECTED = {
    "whitespace": TEXT.replace("here. ", "here.\n\n") + "\n",
    "markdown": '**It\'s called "blue" here.** ' + TEXT.partition("here. ")[2],
    "case": TEXT.lower(),
    "quotes": "It\u2019s called \u201cblue\u201d here. Nobody said so \u2018before\u2019 the meeting "
    "of yesterday afternoon!",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_edit_changes_the_form_and_nothing_else(name: str) -> None:
    assert HARMLESS_EDITS[name].of(TEXT, 0) == EXPECTED[name]


def test_markdown_and_curly_quotes_are_taken_away_where_there_are_some() -> None:
    assert HARMLESS_EDITS["markdown"].of("# Title\n**Yes.** It is.", 0) == "Title\nYes. It is."
    assert HARMLESS_EDITS["quotes"].of("\u201cIt\u2019s\u201d", 0) == '"It\'s"'


def test_typos_swap_letters_within_words_and_depend_on_the_seed() -> None:
    typo = HARMLESS_EDITS["typos"]
    edited = typo.of(TEXT, 1)
    assert edited is not None
    before, after = (re.findall(r"\w+", text) for text in (TEXT, edited))
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert 1 <= len(changed) <= 2
    for old, new in changed:
        assert sorted(old) == sorted(new)
        assert (old[0], old[-1]) == (new[0], new[-1])
    assert typo.of(TEXT, 1) == edited
    assert len({typo.of(TEXT, seed) for seed in range(9)}) > 2


@pytest.mark.parametrize(
    ("name", "text"), [("case", "all small"), ("typos", "a b c"), ("quotes", "none")]
)
def test_an_edit_that_changes_nothing_does_not_apply(name: str, text: str) -> None:
    assert HARMLESS_EDITS[name].of(text, 0) is None
