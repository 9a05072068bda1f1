"""The command line: one command per stage. No rules here; a command reads, calls, prints.

main.py      the group, and how errors become messages and exit codes
settings.py  burnish.toml, --config, --set and flags into one config
words.py     init, collect, audit, snapshot, trace, studio
labels.py    label import, export, status, resolve
users.py     users add, list, role, remove, password, token
tensors.py   pretrain, tune, generate, evaluate, serve, export

Torch is imported inside the commands that need it, so `burnish --help` and the words' side start
without it.
"""

from burnish.cli.main import main

__all__ = ["main"]
