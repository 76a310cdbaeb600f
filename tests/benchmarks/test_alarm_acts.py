import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import alarm_acts


def test_the_best_checkpoint_is_measured_by_prompts_that_did_not_choose_it() -> None:
    """Evaluation 1 is best on the even prompts alone, 2 on the odd ones: luck that is not paid."""
    gold = np.array([[1.0, 1.0, 1.0, 1.0], [9.0, 0.0, 9.0, 0.0], [0.0, 9.0, 0.0, 9.0]])
    assert alarm_acts.best_gold(gold) == 0.0
    assert alarm_acts.best_gold(gold[:1]) == 1.0


def test_acting_is_compared_with_the_best_checkpoint_of_the_run_that_only_warns() -> None:
    def runs(last: float, best: float) -> dict[str, dict[str, float]]:
        acted = {"last": last, "best": best, "best_until_alarm": 0.5}
        return {"warn": acted | {"last": 0.0, "best": 1.0}, "raise_beta": acted, "rollback": acted}

    hacked = {"length": runs(1.5, 2.0), "brevity": runs(2.5, 2.0)}
    found = alarm_acts.differences(hacked | {"unfinished": {"warn": hacked["length"]["warn"]}})
    assert found["warn, last policy"][0] == -1.0
    assert found["stop, best policy"] == [-0.5, -0.5, -0.5]
    mean, low, high = found["rollback, last policy"]
    assert mean == 1.0
    # Gains of 0.5 and 1.5: a standard error of 0.5, and t of one degree of freedom.
    assert (high - mean, mean - low) == pytest.approx((12.706 * 0.5,) * 2, rel=1e-3)
    assert alarm_acts.differences({"length": hacked["length"]}) == {}
