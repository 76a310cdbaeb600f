"""Evaluation of the policies, the reward model and the annotators."""
