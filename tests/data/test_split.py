"""The split: by the prompt's text alone, so the same in every data set."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhfctl.data.rows import Value
from rlhfctl.data.split import held_out, position, prompt_key, same_prompt_key
from rlhfctl.errors import DataError

KEYS = [f"prompt {number}" for number in range(2000)]


def test_spacing_case_width_and_form_do_not_make_another_prompt():
    same: list[Value] = [
        " Why\n me? ",
        "why ME?",
        "why me\uff1f",
        [{"role": "user", "content": "Why  me?"}],
    ]
    assert {prompt_key(prompt) for prompt in same} == {"why me?"}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("x²", "x2"),
        ("ﬁ", "fi"),
        ("if a:\n    b", "if a:\nb"),
        ("    b", "b"),
        ("None", "none"),
        ("a  b", "a b"),
        ([{"role": "system", "content": "a"}], [{"role": "user", "content": "a"}]),
    ],
)
def test_different_prompts_are_no_repetition(one, two):
    assert same_prompt_key(one) != same_prompt_key(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [("é", "e\u0301"), ("a\r\nb", "a\nb"), ("a ", "a\n"), ("\n\na", "a")],
)
def test_repetitions_differ_in_form_only(one, two):
    assert same_prompt_key(one) == same_prompt_key(two)
    messages = [[{"role": "user", "content": text}] for text in (one, two)]
    assert same_prompt_key(messages[0]) == same_prompt_key(messages[1])


def test_the_place_is_the_hash_read_as_a_number():
    digest = hashlib.sha256(b"why me?").hexdigest()
    assert position("why me?") == pytest.approx(int(digest, 16) / 2**256, abs=1e-15)


@settings(deadline=None)
@given(st.text())
def test_places_lie_in_the_unit_interval(key):
    assert 0.0 <= position(key) < 1.0


def test_about_the_share_is_held_out():
    assert sum(held_out(KEYS, 0.1, "x")) == pytest.approx(200, abs=4 * 13.4)


def test_a_smaller_share_s_prompts_are_among_a_larger_one_s():
    small, large = held_out(KEYS, 0.05, "x"), held_out(KEYS, 0.2, "x")
    assert all(inside for outside, inside in zip(small, large, strict=True) if outside)


def test_a_prompt_s_side_does_not_depend_on_its_company():
    assert held_out(KEYS, 0.3, "x")[:100] == held_out(KEYS[:100], 0.3, "x")


@settings(deadline=None)
@given(st.lists(st.text(), min_size=2), st.floats(0.001, 0.999))
def test_no_prompt_is_on_both_sides_and_neither_side_is_empty(keys, share):
    if len(set(keys)) < 2:
        return
    mask = held_out(keys, share, "x")
    outside = {key for key, is_out in zip(keys, mask, strict=True) if is_out}
    inside = {key for key, is_out in zip(keys, mask, strict=True) if not is_out}
    assert outside
    assert inside
    assert not outside & inside


def test_one_prompt_cannot_be_split():
    with pytest.raises(DataError, match=r"pairs\.csv: all rows have the same prompt"):
        held_out(["a", "a"], 0.5, "pairs.csv")
