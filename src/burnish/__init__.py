"""Burnish: supervised fine-tuning as one system, from raw records to a model, with the proof."""

__version__ = "0.1.0"
