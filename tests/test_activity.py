"""Activities reach their listeners, and only those."""

import pytest

from rlhfctl import activity
from rlhfctl.activity import Activity


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (Activity("loading"), "loading"),
        (Activity("generating", 200, 5120), "generating 200/5,120"),
        (Activity("loading x", 1, 2, "weights"), "loading x 1/2 weights"),
        (
            Activity("downloading x", 12_345_678, 4_200_000_000, "bytes"),
            "downloading x 12 MB of 4.2 GB",
        ),
        (Activity("downloading x", 999, None, "bytes"), "downloading x 999 B"),
    ],
)
def test_activities_in_words(shown, text):
    assert str(shown) == text


def test_a_listener_hears_what_is_published_within_its_context():
    heard: list[Activity | None] = []
    activity.publish("before")
    with activity.listening(heard.append):
        assert activity.is_listened_to()
        with activity.within("held-out"):
            activity.publish("generating", 1, 2)
    activity.publish("after")
    assert heard == [Activity("held-out generating", 1, 2), None]
    assert not activity.is_listened_to()
