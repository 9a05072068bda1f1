"""The connection to PostgreSQL says what pg8000's own says. Run: pytest tests/test_postgresql.py"""

import subprocess
import sys

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from burnish.store import open_store
from burnish.store.engine import make_engine, sqlstate

pg8000 = pytest.importorskip("pg8000")

STATEMENTS = [
    ("SELECT 1", ()),
    ("SELECT %s::VARCHAR, %s::INTEGER, %s::FLOAT", ("Ünïcode\n'\"\\", 2**31 - 1, 1e-300)),
    ("SELECT %s::VARCHAR IS NULL, %s::BOOLEAN", (None, True)),
    ("SELECT '%%', '%%s', \"%%\" FROM (SELECT %s::VARCHAR AS \"%%\") AS t -- %%s", ("x",)),
    ("SELECT g FROM generate_series(1, %s::INTEGER) AS g", (1000,)),
    ("SELECT g FROM generate_series(1, %s::INTEGER) AS g", (0,)),
    ("UPDATE pg_class SET relname = relname WHERE relname = %s::VARCHAR", ("no such",)),
    ("DO 'BEGIN END'", ()),
]
FAULTS = [
    ("SELECT 1 / %s::INTEGER", (0,), "22012"),
    ("SELECT %s::VARCHAR FROM nowhere", ("x",), "42P01"),
    ("SELECT 'a' WHERE %s::INTEGER", ("no number",), "42804"),
]


@pytest.fixture
def engine(postgres_url):
    engine = make_engine(postgres_url)
    yield engine
    engine.dispose()


@pytest.fixture
def cursors(engine, postgres_url):
    """Ours and pg8000's, on one database."""
    ours = engine.raw_connection()
    _, options = engine.dialect.create_connect_args(engine.url)
    theirs = pg8000.connect(**options)
    theirs.autocommit = True
    yield ours.cursor(), theirs.cursor()
    ours.close()
    theirs.close()


@pytest.mark.parametrize(("statement", "values"), STATEMENTS)
def test_it_answers_as_pg8000_does(cursors, statement, values):
    """The first time and, prepared, the tenth."""
    answers = []
    for cursor in cursors:
        for _ in range(10):
            cursor.execute(statement, values)
            named = None if cursor.description is None else [c[:2] for c in cursor.description]
            rows = [] if named is None else [tuple(row) for row in cursor.fetchall()]
            answers.append((named, rows, cursor.rowcount))
    assert answers == answers[:1] * 20


def test_a_statement_with_values_takes_one_round_trip(cursors):
    """Each flush of the socket waits for an answer."""
    flushes = []
    for cursor in cursors:
        socket = cursor._c._sock
        count = [0]

        class Counting:
            def __getattr__(self, name, socket=socket, count=count):
                count[0] += name == "flush"
                return getattr(socket, name)

        cursor._c._sock = Counting()
        cursor.execute("SELECT %s::INTEGER", (1,))
        cursor._c._sock = socket
        flushes.append(count[0])
    assert flushes[0] == 1 < flushes[1]


@pytest.mark.parametrize(("statement", "values", "code"), FAULTS)
def test_after_a_fault_it_can_be_used_again(engine, statement, values, code):
    with engine.connect() as connection:
        with pytest.raises(DBAPIError) as caught:
            connection.exec_driver_sql(statement, values)
        assert sqlstate(caught.value) == code
        connection.rollback()
        assert connection.scalar(text("SELECT 1")) == 1


def prepared(cursor) -> set[str]:
    cursor.execute("SELECT statement FROM pg_prepared_statements")
    return {statement for (statement,) in cursor.fetchall()}


def test_what_is_sent_often_is_prepared_and_long_lists_are_not(cursors):
    ours, _ = cursors
    few, many = "SELECT %s::INTEGER", "SELECT " + ", ".join(["%s::INTEGER"] * 101)
    for n in range(6):
        assert (prepared(ours) == {"SELECT $1::INTEGER"}) == (n >= 5)
        ours.execute(few, (n,))
        assert [tuple(row) for row in ours.fetchall()] == [(n,)]
        ours.execute(many, range(101))


def test_a_prepared_statement_survives_a_change_of_its_table(cursors):
    ours, theirs = cursors
    theirs.execute("CREATE TABLE changing (a INTEGER)")
    for _ in range(6):
        ours.execute("SELECT * FROM changing WHERE a = %s::INTEGER", (1,))
    theirs.execute("ALTER TABLE changing ADD COLUMN b INTEGER")
    with pytest.raises(pg8000.DatabaseError, match="cached plan"):
        ours.execute("SELECT * FROM changing WHERE a = %s::INTEGER", (1,))
    ours.execute("SELECT * FROM changing WHERE a = %s::INTEGER", (1,))
    assert [column[0] for column in ours.description] == ["a", "b"]


def test_a_transaction_is_kept_or_left_as_a_whole(store_url):
    """And what only looks begins none: it sees what was committed a moment ago."""
    store = open_store(store_url)
    with store.writing() as connection:
        connection.execute(text("CREATE TABLE kept (a INTEGER)"))
    with pytest.raises(ZeroDivisionError), store.writing() as connection:
        connection.execute(text("INSERT INTO kept VALUES (1)"))
        raise ZeroDivisionError
    with store.looking() as looking, store.reading() as reading:
        counted = text("SELECT count(*) FROM kept")
        assert looking.scalar(counted) == reading.scalar(counted) == 0
        with store.writing() as connection:
            connection.execute(text("INSERT INTO kept VALUES (1)"))
        assert looking.scalar(counted) == 1
        assert reading.scalar(counted) == 0, "a reader sees one moment"
    store.close()


# pg8000 leaves the socket of a connection that the server has closed to the garbage collector, and
# here warnings are errors.
LEFT_ALONE = """
import sys
from time import sleep
from sqlalchemy import text
from burnish.store import open_store

store, other = open_store(sys.argv[1]), open_store(sys.argv[1])
with store.reading() as one, store.reading() as two:
    one.execute(text("SELECT 1")), two.execute(text("SELECT 1"))
cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
with other.writing() as connection:
    connection.execute(text(cut + " AND datname = current_database()"))
sleep(1.1)
with store.reading() as one, store.reading() as two:
    print(one.scalar(text("SELECT 1")), two.scalar(text("SELECT 1")))
"""


def test_connections_left_alone_are_asked_whether_they_live(postgres_url):
    open_store(postgres_url).close()
    command = [sys.executable, "-c", LEFT_ALONE, postgres_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "1"], done.stderr
