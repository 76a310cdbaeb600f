"""The reward model and the policy on trial: metrics with intervals, from plain arrays."""
