"""The project's memory, and the only SQL in Burnish.

    tables.py       what is kept, column by column
    migrations/ upgrade.py                     how an older store becomes this one
    store.py        open_store, Store: one transaction to read, one to write
    engine.py postgresql.py                    connections to the two databases
    locks.py        turns for threads, names that transactions hold
    log.py          the hash-chained log every write appends to
    insert.py       many rows at once in both dialects
    examples.py annotations.py answers.py findings.py drafts.py guidelines.py users.py sessions.py
                    webhooks.py                what can be asked and added, by subject
    search.py search_index.py words.py         the full-text index
    queue.py slots.py queue_rows.py queue_order.py
                    who is asked what next, and what orders it
    disputes.py     what a reviewer must look at
    labelling.py labelled.py progress.py       what labelling, export and status ask beside

Every function takes the connection of an open transaction, so that what belongs together is
written together:

    with store.writing() as connection:
        add_examples(connection, examples, actor="collect")
"""

from sqlalchemy import Connection

from burnish.store.store import Store, open_store

__all__ = ["Connection", "Store", "open_store"]
