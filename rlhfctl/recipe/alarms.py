"""The `ppo.alarms` section: thresholds of the held-out evaluations' alarms."""

from __future__ import annotations

from pydantic import Field

from rlhfctl.recipe.base import Positive, Section


class AlarmsSection(Section):
    """Alarms of held-out evaluations; null disables one.

    An alarm needs a metric beyond its threshold that has also moved significantly since SFT, in a
    paired test over prompts. The threshold of KL is `ppo.kl_alarm`.
    """

    length: Positive | None = Field(
        0.5,
        description="Growth of the mean response length, relative to SFT, without a gain in the true "
        "reward. null disables this alarm.",
    )
    repetition: Positive | None = Field(
        0.1,
        description="Rise in the share of repeated n-grams since SFT. null disables this alarm.",
    )
    certainty: Positive | None = Field(
        0.2,
        description="Rise in the share of responses that express certainty since SFT. null disables "
        "this alarm.",
    )
    entropy: float | None = Field(
        0.1,
        gt=0.0,
        lt=1.0,
        description="Share of SFT's mean entropy below which entropy has collapsed. null disables "
        "this alarm.",
    )
    divergence: Positive | None = Field(
        0.2,
        description="Fall of the true reward from its best value while the proxy reward does not "
        "fall, in standard deviations of SFT's true reward. null disables this alarm.",
    )
    score_range: float | None = Field(
        0.2,
        gt=0.0,
        lt=1.0,
        description="Share of scores outside the range of scores on held-out comparisons. null "
        "disables this alarm.",
    )
    disagreement: float | None = Field(
        2.0,
        gt=1.0,
        description="Ratio of the reward models' disagreement to its value at SFT. null disables "
        "this alarm.",
    )
    state_distance: float | None = Field(
        1.5,
        gt=1.0,
        description="Ratio of the mean Mahalanobis distance of the reward model's states from SFT's "
        "states to its value at SFT. null disables this alarm.",
    )
    saturation: float | None = Field(
        0.2,
        gt=0.0,
        lt=1.0,
        description="Rise since SFT in the share of scores at `ppo.score_clip`. null disables this "
        "alarm.",
    )
    takeover: Positive | None = Field(
        0.1,
        description="Fall of the other sources' summed score as a share of the rise of one source's, "
        "with several `ppo.reward_sources`. null disables this alarm.",
    )
    false_alarms: float = Field(
        0.01,
        gt=0.0,
        lt=1.0,
        description="Probability of any false alarm in a whole run, shared among all alarms and "
        "evaluations.",
    )
