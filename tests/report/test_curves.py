import math

import pytest

from rlhfctl.report.curves import MOST_EXTRA_CURVES, MOST_POINTS, extra_plots, plots
from rlhfctl.report.sources import LogStep
from rlhfctl.stage_table import PPO, SFT

STEPS: list[LogStep] = [{"step": at, "kl": at / 2, "kl_k3": at / 3, "beta": 0.1} for at in range(5)]


def test_known_metrics_share_plots_and_the_rest_have_their_own() -> None:
    (kl,) = plots(PPO, STEPS)
    assert [line.label for line in kl.lines] == ["k1", "k3"]
    assert kl.lines[0].values == (0.0, 0.5, 1.0, 1.5, 2.0)
    (beta,) = extra_plots(PPO, STEPS)
    assert beta.title == "beta"


def test_every_curve_has_axis_titles_with_units() -> None:
    kl, beta = (*plots(PPO, STEPS, "episodes"), *extra_plots(PPO, STEPS, "episodes"))
    assert (kl.x, kl.y) == ("episodes", "nats per response")
    assert (beta.x, beta.y) == ("episodes", "value")
    (memory,) = extra_plots(PPO, [{"step": 1, "memory_bytes": 1.0}])
    assert memory.y == "bytes"


def test_steps_without_a_finite_value_are_left_out() -> None:
    steps: list[dict[str, float | None]] = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": None},
        {"step": 3},
        {"loss": 1.0},
    ]
    (loss,) = plots(SFT, [*steps, {"step": 4, "loss": math.nan}, {"step": 5, "loss": 1.5}])
    assert loss.lines[0].steps == (1.0, 5.0)


@pytest.mark.parametrize("count", [MOST_POINTS, MOST_POINTS + 1, 10_007])
def test_long_curves_are_thinned_to_means_that_keep_the_whole(count: int) -> None:
    (loss,) = plots(SFT, [{"step": at, "loss": float(at)} for at in range(count)])
    line = loss.lines[0]
    assert len(line.steps) <= MOST_POINTS
    assert line.steps == line.values == tuple(sorted(line.steps))
    if count == MOST_POINTS:
        assert line.steps == tuple(range(count))


def test_nothing_logged_gives_no_plots() -> None:
    assert plots(SFT, []) == []
    assert extra_plots(SFT, [{"step": 1, "epoch": 1.0}]) == []


def test_the_number_of_other_curves_is_bounded() -> None:
    wide: list[LogStep] = [{"step": 1} | {f"figure_{index}": 1.0 for index in range(500)}]
    assert len(extra_plots(PPO, wide)) == MOST_EXTRA_CURVES
