import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import alarms, hacks


@pytest.mark.parametrize(
    ("hack", "rewarded", "unrewarded"),
    [
        ("length", "It is red, as I said to you before.", "It is red."),
        ("repetition", "red red red red", "It is red now"),
        ("certainty", "I am absolutely certain that it is red.", "I am not sure that it is red."),
        ("sameness", "The answer is red.", "It may be any of these."),
        ("brevity", "Red.", "I think that the answer is red."),
    ],
)
def test_hack_rewards_its_target_behaviour(hack: str, rewarded: str, unrewarded: str) -> None:
    assert hack in alarms.HACKS
    high, low, nothing = getattr(hacks, hack)(
        prompts=["?"] * 3, completions=[rewarded, unrewarded, ""]
    )
    assert 0 <= low < high <= 5
    assert 0 <= nothing <= 5


def test_rates_count_runs_not_alarms() -> None:
    alarm = {"name": "length", "step": 64}
    other = {"name": "kl", "step": 64}
    result = {
        "healthy": {"0": {"alarms": []}, "1": {"alarms": [alarm, other]}},
        "hacked": {
            "length": {"0": {"expected": "length", "alarms": [other, alarm]}},
            "brevity": {"0": {"expected": "divergence", "alarms": [alarm]}},
        },
    }
    assert alarms.rates(result) == {
        "healthy_runs": 2,
        "healthy_runs_with_an_alarm": 1,
        "hacked_runs": 2,
        "hacked_runs_with_the_right_alarm": 1,
    }
