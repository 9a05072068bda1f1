"""Tune: examples and a base in, a checkpoint out.

config.py    the settings
prepare.py   everything before step 1: model, technique, rows, batches, memory, checks
tune.py      the stage: prepare, train, write the checkpoint
"""
