import pytest

from rlhfctl.evaluation.subsets import SECTIONS, section_accuracies, subset_metrics
from rlhfctl.results.io import to_json


def _subset_metrics(*arguments):
    return to_json(subset_metrics(*arguments))


def test_the_sections_are_rewardbenchs():
    counts = {section: sum(weights.values()) for section, weights in SECTIONS.items()}
    assert counts == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 984 + 6 * 164}
    # math-prm has 447 pairs, and counts as much as all of code: 2985 pairs in all.
    assert sum(counts.values()) - 984 + 447 == 2985


def test_a_section_is_the_mean_over_its_prompts_with_mathematics_as_much_as_code():
    code = dict.fromkeys([name for name in SECTIONS["Reasoning"] if name != "math-prm"], 1.0)
    assert section_accuracies(code | {"math-prm": 0.5}) == {"Reasoning": 0.75}
    found = section_accuracies({"alpacaeval-easy": 1.0, "mt-bench-easy": 0.0, "donotanswer": 0.25})
    assert found == {"Chat": pytest.approx(100 / 128), "Safety": 0.25}


def test_the_score_of_rewardbenchs_subsets_is_the_mean_over_sections():
    metrics = _subset_metrics(
        [1, 1, 0, 1], [0, 0, 1, 1], ["donotanswer", "math-prm", "math-prm", "hep-go"]
    )
    assert metrics["subsets"]["math-prm"]["accuracy"] == 0.5
    assert metrics["sections"] == {"Safety": 1.0, "Reasoning": 0.5}
    assert metrics["subsets_mean"] == 0.75


def test_other_subsets_have_a_plain_mean_and_no_sections():
    metrics = _subset_metrics([1, 1, 1, 0], [0, 0, 0, 1], ["a", "a", "a", "donotanswer"])
    assert "sections" not in metrics
    assert metrics["subsets_mean"] == 0.5
