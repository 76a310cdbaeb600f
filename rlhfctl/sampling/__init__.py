"""Responses of a finished run's models to prompts of the user."""
