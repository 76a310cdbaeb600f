"""RLHF that a single engineer can run and trust: SFT, reward model, PPO, evaluation."""

__version__ = "0.1.0"
