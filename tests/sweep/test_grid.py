"""Lists of values and their grid: read as they were meant, named for what they are."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfctl.errors import UsageError
from rlhfctl.recipe.sweep import SweepSection
from rlhfctl.sweep.grid import combine, merge, names, read_lists, split_values

NUMBERS = st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.text("abcXYZ0189._/:-' ", min_size=1).map(str.strip).filter(
    lambda text: text and text[0] != "'" and ":'" not in text.replace(" ", "")
)  # fmt: skip
QUOTED = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
JSON = st.recursive(
    NUMBERS | QUOTED | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(QUOTED, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(PLAIN, min_size=1, max_size=6))
def test_words_are_split_at_every_comma(values):
    assert split_values(",".join(values)) == values
    assert split_values(" , ".join(values)) == values


@given(st.lists(JSON, min_size=1, max_size=5))
def test_what_stands_in_brackets_or_quotes_stays_whole(values):
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    assert split_values(",".join(texts)) == texts


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,0.02", ["0", "0.02"]),
        ("[1, 2],[3]", ["[1, 2]", "[3]"]),
        ("{a: [1, 2], b: 3},null", ["{a: [1, 2], b: 3}", "null"]),
        ("'a,b',c", ["'a,b'", "c"]),
        ('"a,b"', ['"a,b"']),
        ("it's,here", ["it's", "here"]),
        ("'it''s, here',x", ["'it''s, here'", "x"]),
        ('"a \\" b, c",d', ['"a \\" b, c"', "d"]),
        ("'open,ended", ["'open", "ended"]),
        ("", [""]),
    ],
)
def test_examples(text, values):
    assert split_values(text) == values


@pytest.mark.parametrize("text", ["0,,1", "0,", ",0", "0, ,1"])
def test_an_empty_value_is_refused(text):
    with pytest.raises(UsageError, match="empty"):
        split_values(text)


def test_one_value_is_for_all_points_and_several_are_swept():
    fixed, lists = read_lists(["ppo.episodes=64", "ppo.beta=0,0.1", "lora={r: 4, alpha: 8}"])
    assert fixed == {"ppo.episodes": "64", "lora": "{r: 4, alpha: 8}"}
    assert lists == {"ppo.beta": ["0", "0.1"]}


@pytest.mark.parametrize("given", [["a=1,2", "a=3"], ["a=1", "a=2,3"], ["a=1,2", "a=2,3"]])
def test_a_key_that_is_listed_is_given_once(given):
    with pytest.raises(UsageError, match="twice"):
        read_lists(given)


def test_what_is_no_setting_is_refused():
    with pytest.raises(UsageError, match="key=value"):
        read_lists(["ppo.beta"])


def test_the_command_line_replaces_the_recipes_list_key_by_key():
    section = SweepSection(set={"ppo.beta": [0, 0.1], "seed": [0, 1], "ppo.sft": [None]})
    assert merge(section, {"seed": "3"}, {"ppo.beta": ["1", "2"]}) == {
        "ppo.beta": ["1", "2"],
        "ppo.sft": ["null"],
    }


def test_nothing_to_sweep_is_refused():
    with pytest.raises(UsageError, match="nothing to sweep"):
        merge(SweepSection(), {"ppo.beta": "0"}, {})


@given(st.dictionaries(PLAIN, st.lists(PLAIN, min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_grid_has_every_combination_once(lists):
    points = combine(lists, zipped=False)
    size = 1
    for values in lists.values():
        size *= len(values)
    assert len(points) == size
    assert all(point[key] in lists[key] for point in points for key in lists)
    assert [point[next(iter(lists))] for point in points] == [
        value
        for value in next(iter(lists.values()))
        for _ in range(size // len(next(iter(lists.values()))))
    ]


def test_zipped_lists_go_side_by_side():
    lists = {"a": ["1", "2"], "b": ["3", "4"]}
    assert combine(lists, zipped=True) == [{"a": "1", "b": "3"}, {"a": "2", "b": "4"}]
    with pytest.raises(UsageError, match="a has 2, b has 1"):
        combine({"a": ["1", "2"], "b": ["3"]}, zipped=True)


def test_names_say_what_is_different():
    assert names([{"ppo.beta": "0.02", "seed": "1"}]) == ["beta-0.02-seed-1"]
    ambiguous = names([{"sft.learning_rate": "1e-5", "ppo.learning_rate": "2e-5"}])
    assert ambiguous == ["sft.learning_rate-1e-5-ppo.learning_rate-2e-5"]


@given(st.lists(st.fixed_dictionaries({"a.key": JSON.map(json.dumps)}), max_size=5))
def test_every_point_has_a_safe_name_of_its_own(points):
    found = names(points)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name) for name in found)
    different = {json.dumps(point) for point in points}
    assert len(set(found)) == len(different)
    assert [names([point, {"a.key": "other"}])[0] for point in points] == found
