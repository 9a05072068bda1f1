"""Numbered steps from an empty database to the tables of today, run by `open_store`."""

NEWEST = "0006"
"""The step that a store of today is at."""
