"""The peer: the last release of TRL that has a PPO trainer, in an environment of its own."""
