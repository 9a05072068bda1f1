"""Numbered steps from an empty database to the tables of today, run by `open_store`."""
