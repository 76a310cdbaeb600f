"""Annotator quality estimated from labels, on the embedded panel with exactly known quality."""

import json

import numpy as np
import pytest

from rlhfctl.data.annotations import comparison_votes
from rlhfctl.evaluation.annotator_quality import examine, examine_file
from rlhfctl.evaluation.ceiling import annotator_accuracy
from rlhfctl.results.estimate import Estimate
from rlhfctl.results.io import to_json
from rlhfctl.world.annotator_panel import PANEL, Annotator, chosen_first, pairwise_agreement
from rlhfctl.world.corpora import response_pairs
from rlhfctl.world.streams import stream


def examine_json(*arguments, **options):
    """Return the result as JSON, in which an estimate is flat."""
    return to_json(examine(*arguments, **options))


def choices(pairs, panel, labels_each, seed=0):
    rng = stream("choices", seed)
    for pair in pairs:
        for annotator in rng.sample(panel, labels_each):
            first = chosen_first(annotator, pair, rng)
            chosen, rejected = pair[1:] if first else pair[:0:-1]
            yield {
                "prompt": pair[0],
                "chosen": chosen,
                "rejected": rejected,
                "annotator": annotator.name,
            }


@pytest.fixture(scope="module")
def pairs():
    return response_pairs(3_000, seed=21)


@pytest.fixture(scope="module")
def metrics(pairs):
    return examine_json(comparison_votes(choices(pairs, PANEL, 6), "panel"), seed=0)


def test_the_agreement_is_that_of_the_panel(pairs, metrics):
    truth = np.mean(list(pairwise_agreement(pairs).values()))
    assert metrics["agreement"] == pytest.approx(truth, abs=0.015)
    assert metrics["alpha"] == pytest.approx(2 * truth - 1, abs=0.03)


def test_the_ceiling_is_within_two_points_of_the_truth(pairs, metrics):
    truth = annotator_accuracy(float(np.mean(list(pairwise_agreement(pairs).values()))))
    assert metrics["ceiling"]["accuracy"] == pytest.approx(truth, abs=0.02)


def test_nothing_is_found_where_nothing_was_planted(metrics):
    assert metrics["warnings"] == []
    assert "intransitive" not in metrics


@pytest.mark.parametrize(
    "planted",
    [
        [Annotator(f"lapse {share}", temperature=0.85, lapse=share) for share in (0.3, 0.6, 0.9)],
        [Annotator(f"noise {t}", temperature=t) for t in (1.7, 3.5, 9.0)],
        [Annotator(f"length {w}", per_word=w, temperature=0.85) for w in (0.08, 0.2, 0.8)],
    ],
    ids=["lapses", "noise", "bias"],
)
def test_who_is_noisier_or_more_biased_is_less_reliable(pairs, planted):
    panel = (*PANEL[:4], *planted)
    found = examine_json(comparison_votes(choices(pairs, panel, 4), "planted"), seed=0)
    accuracy = {name: known["accuracy"] for name, known in found["per_annotator"].items()}
    ranked = [accuracy[one.name] for one in planted]
    assert ranked == sorted(ranked, reverse=True)
    assert min(accuracy[one.name] for one in PANEL[:4]) > ranked[0]


def test_alike_annotators_are_found_alike(pairs):
    panel = [Annotator(name, temperature=0.85, lapse=0.05) for name in "abcde"]
    found = examine_json(comparison_votes(choices(pairs, panel, 4), "alike"), seed=0)
    accuracy = [known["accuracy"] for known in found["per_annotator"].values()]
    assert np.ptp(accuracy) < 0.05


def test_with_one_label_a_pair_it_says_plainly_that_nothing_can_be_known(pairs):
    found = examine_json(comparison_votes(choices(pairs[:200], PANEL, 1), "single"), seed=0)
    assert not {"agreement", "alpha", "ceiling"} & found.keys()
    assert set(found["per_annotator"]) == {one.name for one in PANEL}
    assert all(known.keys() == {"labels"} for known in found["per_annotator"].values())
    (note,) = found["notes"]
    assert "no item has two labels" in note
    assert found["warnings"] == [], "nothing is wrong with that"


def test_a_reward_model_above_the_ceiling_is_told_of(pairs):
    votes = comparison_votes(choices(pairs, PANEL, 2), "panel")
    at_it = examine_json(votes, 0, Estimate(0.82, 0.80, 0.84))
    above = examine_json(votes, 0, Estimate(0.95, 0.93, 0.97))
    assert at_it["warnings"] == []
    assert "above the ceiling" in above["warnings"][0]


def test_circles_among_three_responses_are_found():
    rows = [
        {"prompt": f"Q{n}", "chosen": one, "rejected": two, "annotator": who}
        for n in range(60)
        for who in ("ada", "ben", "cleo")
        for one, two in (("rock", "scissors"), ("scissors", "paper"), ("paper", "rock"))
    ]
    found = examine_json(comparison_votes(rows, "circles"), seed=0)
    assert found["intransitive"]["share"] == 1.0
    assert found["intransitive"]["expected"] == 0.0
    assert found["intransitive"]["triples"] == 60
    assert "intransitive" in found["warnings"][0]


def panda_rows(items, seed=0):
    """Rows of PandaLM's form: three models' responses, compared by three noisy annotators."""
    rng = np.random.default_rng(seed)
    for number in range(items):
        prompt, pair = divmod(number, 3)
        true = int(rng.choice([0, 1, 2], p=[0.1, 0.43, 0.47]))
        votes = [int(rng.choice([0, 1, 2])) if rng.random() < 0.1 else true for _ in range(3)]
        yield {
            "idx": number,
            "cmp_key": ("x_y", "x_z", "y_z")[pair],
            "instruction": f"Do task {prompt}.",
            "input": float("nan") if prompt % 2 else "with this",
            "response1": f"{'xxy'[pair]} {prompt}",
            "response2": f"{'yzz'[pair]} {prompt}",
            **{f"annotator{one + 1}": vote for one, vote in enumerate(votes)},
        }


@pytest.fixture(scope="module")
def panda(tmp_path_factory):
    file = tmp_path_factory.mktemp("panda") / "testset.json"
    rows = list(panda_rows(999))
    file.write_text(json.dumps(rows))
    columns = {"annotators": "annotator1,annotator2,annotator3"}
    result, report = examine_file(str(file), columns, seed=0)
    assert report.usable == 999
    return np.array([[row[f"annotator{one}"] for one in (1, 2, 3)] for row in rows]), result


def kappa_by_hand(first, second):
    observed = np.mean(first == second)
    expected = sum(np.mean(first == label) * np.mean(second == label) for label in range(3))
    return (observed - expected) / (1 - expected)


def test_a_file_of_pandalms_form_has_a_kappa_per_pair_of_annotators(panda):
    labels, result = panda
    assert [(one.first, one.second, one.items) for one in result.cohen] == [
        ("annotator1", "annotator2", 999),
        ("annotator1", "annotator3", 999),
        ("annotator2", "annotator3", 999),
    ]
    for one, (first, second) in zip(result.cohen, ((0, 1), (0, 2), (1, 2)), strict=True):
        assert one.kappa.value == pytest.approx(kappa_by_hand(labels[:, first], labels[:, second]))
        assert one.kappa.low < one.kappa.value < one.kappa.high
    # Every item has all annotators, so Fleiss's kappa lies among the pairs'.
    kappas = [one.kappa.value for one in result.cohen]
    assert min(kappas) < result.fleiss.value < max(kappas)


def test_its_majority_labels_are_counted(panda):
    labels, result = panda
    majority = [np.bincount(row, minlength=3) for row in labels]
    decided = [int(row.argmax()) for row in majority if row.max() > 1]
    assert result.majority.labels == {str(label): decided.count(label) for label in range(3)}
    assert result.majority.none == 999 - len(decided)


def test_its_ties_are_left_out_of_the_ceiling_and_halved_in_triples(panda):
    labels, result = panda
    pairs = [(row[a], row[b]) for row in labels for a, b in ((0, 1), (0, 2), (1, 2))]
    strict = [one == other for one, other in pairs if one and other]
    assert result.ceiling.agreement == pytest.approx(np.mean(strict))
    assert result.intransitive.triples == 333
    halved = np.mean([0.5 if not (one and other) else one == other for one, other in pairs])
    assert result.intransitive.expected == pytest.approx((1 - halved) / 2)


def test_only_pairs_with_the_most_common_items_have_a_kappa_in_a_large_panel():
    rows = [
        {"prompt": f"Q{n}", "chosen": "a", "rejected": "b", "annotator": f"w{(n + k) % 40}"}
        for n in range(400)
        for k in range(4)
    ]
    result = examine(comparison_votes(rows, "crowd"), seed=0)
    assert len(result.cohen or ()) == 100
    assert any("Cohen's kappa is given for 100 of 120 pairs" in note for note in result.notes)
