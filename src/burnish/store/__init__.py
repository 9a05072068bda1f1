"""The project's memory, and the only SQL in Burnish.

    tables.py       what is kept, column by column
    migrations/     how an older store becomes this one
    store.py        open_store, Store: one transaction to read, one to write
    log.py          the hash-chained log every write appends to
    insert.py       insert-or-ignore in both dialects
    examples.py annotations.py answers.py findings.py   what can be asked and added, by subject
    labelling.py queue.py                               what labelling asks beside

Every function takes the connection of an open transaction, so that what belongs together is
written together:

    with store.writing() as connection:
        add_examples(connection, examples, actor="collect")
"""

from sqlalchemy import Connection

from burnish.store.store import Store, open_store

__all__ = ["Connection", "Store", "open_store"]
