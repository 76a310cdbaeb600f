"""Typed results of the stages, their JSON form and the names of their metrics."""
