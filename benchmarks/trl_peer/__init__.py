"""TRL's side of the comparison: its last release with a PPO trainer, in a separate environment."""
