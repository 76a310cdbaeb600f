import pytest

from rlhfctl.world.annotator_panel import (
    PANEL,
    Annotator,
    chosen_first,
    pairwise_agreement,
    preferences,
)
from rlhfctl.world.corpora import response_pairs
from rlhfctl.world.gold import gold_features, gold_reward
from rlhfctl.world.streams import stream

WHERE = "Ben has a red cup and lives in Rome. Where does Ben live?"


@pytest.fixture(scope="module")
def pairs():
    return response_pairs(3_000, seed=11)


def test_the_panel_agrees_as_often_as_instructgpts_labellers(pairs):
    agreement = pairwise_agreement(pairs)
    assert len(PANEL) >= 5
    assert len(agreement) == len(PANEL) * (len(PANEL) - 1) // 2
    assert all(0.69 <= share <= 0.77 for share in agreement.values())
    mean = sum(agreement.values()) / len(agreement)
    assert mean == pytest.approx(0.726, abs=0.01)


def test_drawn_labels_agree_as_often_as_computed(pairs):
    one, other = PANEL[0], PANEL[1]
    rng = stream("drawn labels")
    same = sum(chosen_first(one, pair, rng) == chosen_first(other, pair, rng) for pair in pairs)
    expected = pairwise_agreement(pairs)[one.name, other.name]
    assert same / len(pairs) == pytest.approx(expected, abs=0.025)


def test_the_majority_mostly_orders_as_the_gold_reward_does(pairs):
    rng = stream("majority")
    right = decided = 0
    for pair in pairs[:2_000]:
        prompt, first, second = pair
        margin = gold_reward(prompt, first) - gold_reward(prompt, second)
        votes = sum(1 if chosen_first(one, pair, rng) else -1 for one in PANEL)
        if margin and votes:
            decided += 1
            right += (margin > 0) == (votes > 0)
    assert right / decided >= 0.80


@pytest.mark.parametrize(
    ("biased", "liked", "plain"),
    [
        (Annotator("longer", per_word=0.1), "As far as it goes, Ben now lives in Rome.", "Rome."),
        (Annotator("sure", for_certain=0.5), "Certainly, it is Rome.", "It is Rome."),
        (Annotator("doubter", for_hedged=0.9), "I think it is Rome.", "It is Rome."),
        (Annotator("vain", for_flattery=1.0), "What a great question! Rome.", "Rome."),
        (Annotator("polite", for_polite=1.0), "Thank you for asking. Rome.", "Rome."),
    ],
)
def test_a_bias_turns_a_preference(biased, liked, plain):
    def chance(annotator: Annotator) -> float:
        return annotator.preference(gold_features(WHERE, liked), gold_features(WHERE, plain))

    assert chance(Annotator("fair")) <= 0.5 < chance(biased)


def test_biased_members_of_the_panel_choose_what_they_like_more_often_than_the_fair_one(pairs):
    chances = preferences(pairs)
    fair = chances["ada"]
    features = [(gold_features(p, a), gold_features(p, b)) for p, a, b in pairs]

    def leaning(name: str, feature: str) -> float:
        """Mean shift of the preference towards the response that has more of a feature."""
        shift = 0.0
        for (first, second), theirs, neutral in zip(features, chances[name], fair, strict=True):
            difference = getattr(first, feature) - getattr(second, feature)
            shift += (theirs - neutral) * ((difference > 0) - (difference < 0))
        return shift / len(pairs)

    assert leaning("bruno", "words") > 0.01
    assert leaning("felix", "words") < -0.01
    assert leaning("chloe", "certain") > 0.01
    assert leaning("david", "flattering") > 0.01
    assert leaning("elena", "hedged") < -0.01


def test_agreement_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        pairwise_agreement([])
