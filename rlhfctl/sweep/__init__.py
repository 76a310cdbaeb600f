"""Sweeps of one recipe over many settings: planning, running and recommending."""
