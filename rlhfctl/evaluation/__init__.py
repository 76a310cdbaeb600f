"""The reward model and the policy on trial: figures with intervals, from plain arrays."""
