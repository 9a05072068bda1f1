"""The table `example_words`: what a search looks through, one row an example.

    SQLite       FTS5, without content and sizes of its own, as our results have no rank
    PostgreSQL   a tsvector with positions, and a GIN index on it

`store.words` makes the tokens; here they are only put in and asked for. A row is added in the
transaction that adds its example, so the index is never behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    column,
    func,
    literal,
    select,
    table,
    text,
    true,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import TSQUERY

from burnish.progress import progress_bar
from burnish.store.insert import insert_many
from burnish.store.words import MARK, Term, index_text
from burnish.types import Conversation

_PAGE = 10_000

# So many matches PostgreSQL finds and puts in order in 50 ms; of more, the next is near.
_FEW = 5_000

_SQLITE = (
    """CREATE VIRTUAL TABLE example_words USING fts5(
        words, content='', columnsize=0, prefix='3', tokenize="ascii tokenchars '='")""",
    # One piece of index a transaction of collect, not one a MiB, and pieces merged by eights.
    "INSERT INTO example_words (example_words, rank) VALUES ('hashsize', 67108864)",
    "INSERT INTO example_words (example_words, rank) VALUES ('automerge', 8)",
)
_POSTGRESQL = (
    "CREATE TABLE example_words (seq INTEGER PRIMARY KEY, words TSVECTOR NOT NULL)",
    "CREATE INDEX ix_example_words_words ON example_words USING gin (words)",
)


@dataclass(frozen=True, slots=True)
class Matching:
    """Rows of the index, for a statement to select from."""

    index: FromClause
    seq: ColumnElement[int]
    condition: ColumnElement[bool]


def create_search_index(connection: Connection) -> None:
    """Make the table and put every example into it that is there already."""
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL:
        connection.exec_driver_sql(statement)
    total = connection.scalar(text("SELECT count(*) FROM examples"))
    with progress_bar("indexing for search", unit="example", total=total) as bar:
        for page in _pages(connection):
            add_words(connection, page)
            bar.update(len(page))


def add_words(connection: Connection, rows: Sequence[tuple[int, str]]) -> None:
    """Put examples into the index: their seq and their `words.index_text`."""
    if connection.dialect.name == "sqlite":
        insert_many(connection, "example_words", ("rowid", "words"), rows)
    else:
        numbered = [(seq, _tsvector(tokens)) for seq, tokens in rows]
        insert_many(connection, "example_words", ("seq", "words"), numbered)


def matching(connection: Connection, terms: Iterable[Term], tokens: Iterable[str]) -> Matching:
    """The rows that have these terms and these tokens; those with an excluded term left out."""
    every = [*terms, *(Term((token,)) for token in tokens)]
    wanted = [term for term in every if not term.is_excluded]
    unwanted = [term for term in every if term.is_excluded]
    if connection.dialect.name == "sqlite":
        # FTS5 has no row without a word: what excludes only, excludes from all that have the mark.
        expression = " AND ".join(map(_fts5_term, wanted or [Term((MARK,))]))
        if unwanted:
            expression = f"({expression}) NOT ({' OR '.join(map(_fts5_term, unwanted))})"
        index = table("example_words", column("rowid"), column("words"))
        return Matching(index, index.c.rowid, index.c.words.op("MATCH")(expression))
    terms_of_tsquery = [*map(_tsquery_term, wanted), *(f"!{_tsquery_term(t)}" for t in unwanted)]
    index = table("example_words", column("seq"), column("words"))
    query = sql_cast(literal(" & ".join(terms_of_tsquery)), TSQUERY)
    condition = index.c.words.op("@@")(query)
    some = select(index.c.seq).where(condition).limit(_FEW).subquery()
    if (connection.scalar(select(func.count()).select_from(some)) or 0) == _FEW:
        return Matching(index, index.c.seq, condition)
    # Left to itself the planner takes a rare word for as frequent as the rarest it has counted, and
    # goes through all examples in order: 0.6 s at 350,000.
    found = select(index.c.seq).where(condition).cte("found").prefix_with("MATERIALIZED")
    return Matching(found, found.c.seq, true())


def _fts5_term(term: Term) -> str:
    return f'"{" ".join(term.words)}"' + " *" * term.is_prefix


def _tsquery_term(term: Term) -> str:
    # Tokens are letters and digits, and facts also "=": nothing the syntax knows.
    *before, last = term.words
    return f"({' <-> '.join([*before, last + ':*' * term.is_prefix])})"


def _tsvector(tokens: str) -> str:
    """The tokens with their positions, as text; PostgreSQL puts equal ones together."""
    return " ".join([f"{token}:{at}" for at, token in enumerate(tokens.split(" "), 1)])


def _pages(connection: Connection) -> Iterator[list[tuple[int, str]]]:
    last: Any = 0
    query = text(
        "SELECT seq, conversation, source, metadata FROM examples"
        f" WHERE seq > :last ORDER BY seq LIMIT {_PAGE}"
    )
    while rows := connection.execute(query, {"last": last}).all():
        yield [(row.seq, _tokens(row)) for row in rows]
        last = rows[-1].seq


def _tokens(row: Any) -> str:
    conversation = Conversation.from_json(json.loads(row.conversation))
    return index_text(conversation, row.source, json.loads(row.metadata))
