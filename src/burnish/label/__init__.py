"""Labelling: who is asked what, what they answered, and how far they agree. No HTTP, no torch.

guidelines.py    what annotators work by, and its versions
queue.py         next_example, submit: exactly as many answers per example as it wants
agreement.py     percent, Cohen, Fleiss, Krippendorff, with intervals
resolve.py       a rule or a person settles what annotators answered
status.py        how far the labelling is, who did what, how long it will take
interchange.py   labels in and out as JSONL and CSV
"""
