"""Metrics of reward models and policies, with confidence intervals, from plain arrays."""
