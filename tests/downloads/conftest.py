"""Fixtures of the Hub's tests."""

from tests.hub_fixtures import hub, hub_environment, outcomes

__all__ = ["hub", "hub_environment", "outcomes"]
