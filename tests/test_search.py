"""Search and bulk actions, over both databases. Run: pytest tests/test_search.py"""

import inspect
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from burnish.errors import InputError
from burnish.label import bulk
from burnish.label.queue import submit
from burnish.store import open_store
from burnish.store.answers import Resolution, add_resolutions
from burnish.store.examples import PAGE, add_examples
from burnish.store.findings import exclude, read_exclusions
from burnish.store.log import read_log, verify_log
from burnish.store.queue_order import read_prioritised
from burnish.store.search import COUNTED, STATUSES, Query, find, search
from burnish.store.tables import assignments
from burnish.store.words import facts, parse_terms, words
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message, ToolCall

TASK = Task()
SHARED_STORE = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25
)


def spoken(*texts: str, **fields) -> Example:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[n % 2], text) for n, text in enumerate(texts))
    return Example(Conversation(messages), fields.pop("source", "a.jsonl"), **fields)


def add(store, *examples: Example) -> None:
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")


def found(store, text: str = "", **fields) -> list[str]:
    """First messages of what is found."""
    with store.reading() as connection:
        page = search(connection, Query(text, **fields))
    return [one.conversation.messages[0].content for one in page.rows]


# Words.


@pytest.mark.parametrize(
    ("said", "tokens"),
    [
        ("Where is my PARCEL?", "where is my parcel"),
        ("e-mail snake_case 3.14 C++", "e mail snake case 3 14 c"),
        ("Café naïve STRASSE Straße ﬁn", "cafe naive strasse strasse fin"),
        ("Київ й", "киів и"),
        ("東京タワー and 한국어 말", "東 京 タ ワ ー and 한국어 말"),
        ("สวัสดี", "ส ว ั ส ด ี"),
        ("a" * 150, " ".join(["a" * 64, "a" * 64, "a" * 22])),
        ("é" * 70, " ".join(["e" * 64, "e" * 6])),
        ("= =abc \x00 '", "abc"),
    ],
)
def test_words(said, tokens):
    assert words(said) == tokens.split()


@settings(deadline=None)
@given(st.text(), st.text())
def test_words_are_blind_to_case_and_the_same_in_any_company(one, other):
    assert words(one) == words(" ".join(words(one)))
    assert words(f"{one} {other}") == words(one) + words(other)


def test_facts():
    metadata = {"a": "x", "n": 1, "f": 0.5, "t": True, "no": None, "o": {"a": {"b": "y"}}}
    metadata["list"] = ["p", 2, {"k": "v"}, ["q"]]
    assert list(facts(metadata)) == [
        ("a", "x"),
        ("n", "1"),
        ("f", "0.5"),
        ("t", "true"),
        ("o.a.b", "y"),
        ("list", "p"),
        ("list", "2"),
        ("list.k", "v"),
        ("list", "q"),
    ]


# Searching.


@pytest.fixture
def talks(store):
    add(
        store,
        spoken("Where is my parcel?", "It left on Monday."),
        spoken("Refund policy", "A refund takes 5 days.", metadata={"language": "en", "n": 7}),
        spoken("The policy on refunds", "Write an e-mail.", metadata={"language": "en"}),
        spoken("Rückerstattung in 東京都", "Ja.", metadata={"language": "de"}, source="b.jsonl"),
    )
    return store


TYPED = [
    ("", [0, 1, 2, 3]),
    ("policy", [1, 2]),
    ("POLICY refund", [1]),
    ("refund*", [1, 2]),
    ("ref* poli* tak*", [1]),
    ("re*", []),  # with fewer than three letters, the word itself
    ('"refund policy"', [1]),
    ('"policy refund"', []),  # not across two messages
    ('"refund pol"*', [1]),
    ('"refund pol*"', []),
    ("policy -refund", [2]),
    ("policy -refund*", []),
    ("-policy", [0, 3]),
    ('-"refund policy" -parcel', [2, 3]),
    ("e-mail", [2]),
    ("mail-e", []),
    ("ruckerstattung", [3]),
    ("京都", [3]),
    ("都京", []),
    ("5", [1]),
    ('"on monday', [0]),
    ("parcel parcel", [0]),
    ("nowhere", []),
    ("-", [0, 1, 2, 3]),
    ('"" * -"" ?!', [0, 1, 2, 3]),
]


def test_what_is_typed_finds(talks):
    every = found(talks)
    for typed, numbers in TYPED:
        assert found(talks, typed) == [every[n] for n in numbers], typed


def test_filters(talks):
    every = found(talks)
    assert found(talks, where={"language": "en"}) == every[1:3]
    assert found(talks, "policy -refund", where={"language": "en"}) == every[2:3]
    assert found(talks, where={"language": "en", "n": "7"}) == every[1:2]
    assert found(talks, where={"language": "EN"}) == []
    assert found(talks, where={"nothing": ""}) == []
    assert found(talks, source="b.jsonl") == every[3:]
    assert found(talks, source="b") == []
    # A fact of the metadata is no source, whatever it is called.
    add(talks, spoken("odd", metadata={"source": "c.jsonl", "metadata.language": "fr"}))
    assert found(talks, source="c.jsonl") == []
    assert found(talks, where={"source": "c.jsonl"}) == ["odd"]
    assert found(talks, where={"language": "fr"}) == []


def test_tool_calls_are_found(store):
    call = ToolCall("get_weather", '{"city": "Lisbon"}')
    turns = (Message("user", "Umbrella?"), Message("assistant", "", (call,)))
    add(store, Example(Conversation(turns), "a.jsonl"))
    assert found(store, "lisbon") == found(store, "get_weather city") == ["Umbrella?"]


def test_two_facts_of_one_hash_are_told_apart(store, monkeypatch):
    monkeypatch.setattr("burnish.store.words._fact", lambda *_: "=" + "0" * 16)
    add(store, *(spoken(f"{n}", metadata={"n": n}) for n in range(5)))
    assert found(store, where={"n": "3"}) == ["3"]
    assert found(store, source="b.jsonl") == []
    with store.reading() as connection:
        page = search(connection, Query(where={"n": "4"}, limit=1))
    assert (len(page.rows), page.more) == (1, False)


_WORD = st.sampled_from(["a", "b", "abc", "abcd", "Abcde", "abcdef", "京", "Ä"])
_TALK = st.lists(st.lists(_WORD, max_size=4).map(" ".join), min_size=1, max_size=3)
_TERM = st.builds(
    lambda no, said, star: f'{no}"{" ".join(said)}"{star}',
    st.sampled_from(["", "-"]),
    st.lists(_WORD, min_size=1, max_size=2),
    st.sampled_from(["", "*"]),
)


def has(talk: list[str], said: tuple[str, ...], is_prefix: bool) -> bool:
    """Whether the words stand side by side in one message, found the plain way."""
    for message in talk:
        there = words(message)
        for start in range(len(there) - len(said) + 1):
            *before, last = there[start : start + len(said)]
            ends = last.startswith(said[-1]) if is_prefix else last == said[-1]
            if ends and before == list(said[:-1]):
                return True
    return False


@SHARED_STORE
@given(st.lists(_TALK, min_size=1, max_size=5), st.lists(_TERM, max_size=3).map(" ".join))
def test_a_search_finds_what_reading_everything_would(store, talks, typed):
    # A source of its own keeps this case apart from those before.
    source = uuid.uuid4().hex
    add(store, *(spoken(*talk, source=source, metadata={"n": n}) for n, talk in enumerate(talks)))
    expected = [
        n
        for n, talk in enumerate(talks)
        if all(
            has(talk, term.words, term.is_prefix) is not term.is_excluded
            for term in parse_terms(typed)
        )
    ]
    with store.reading() as connection:
        page = search(connection, Query(typed, source=source))
    assert [one.metadata["n"] for one in page.rows] == expected
    assert page.count == len(expected)


@SHARED_STORE
@given(st.text(alphabet=st.characters(codec="utf-8")), st.text())
@example("NEAR(a b) AND OR NOT words: ^a + {x} 'q'", "' OR 1=1 --")
@example('"a""b" -"c', "\x00")
@example("a:b:* | & ! <-> ( ) \\", "%s :x ?")
@example("a " * 3000, "")
@example("b" * 100_000, "")
@example("-a " * 500, "")
@example("\ud800 \udfff", "\ud800")
def test_whatever_is_typed_is_a_search(store, typed, value):
    with store.reading() as connection:
        search(connection, Query(typed, where={value: value}, source=value))


@pytest.mark.parametrize("size", [1, 7, 50])
def test_pages_follow_one_another_while_more_arrive(store, size):
    add(store, *(spoken(f"word {n}", metadata={"n": n}) for n in range(20)))
    seen, after = [], 0
    for more_to_come in range(100):
        with store.reading() as connection:
            page = search(connection, Query("word", after=after, limit=size))
        seen += [one.metadata["n"] for one in page.rows]
        assert page.count == 20 + min(more_to_come, 5)
        if more_to_come < 5:
            add(store, spoken(f"word late {more_to_come}", metadata={"n": 20 + more_to_come}))
        if not page.more:
            break
        after = page.rows[-1].seq
    assert seen == list(range(len(seen)))
    assert len(seen) >= 20


def test_counting_ends(store):
    add(store, *(spoken(f"word {n}") for n in range(COUNTED + 5)))
    with store.reading() as connection:
        assert search(connection, Query("word")).count == COUNTED
        assert search(connection, Query()).count == COUNTED
        assert len(find(connection, Query("word", limit=COUNTED + 5))) == COUNTED + 5


def test_what_is_found_is_the_example(store):
    one = spoken("ask", "answer", metadata={"a": [1, None]}, source="s")
    add(store, one)
    with store.writing() as connection:
        exclude(connection, {one.id: "why"}, actor="test")
    with store.reading() as connection:
        [row] = search(connection, Query("ask")).rows
    assert (row.id, row.conversation, row.metadata) == (one.id, one.conversation, one.metadata)
    assert (row.source, row.excluded) == ("s", "why")


def test_an_index_made_late_is_the_index_made_on_the_way(store):
    texts = ["Where is it", "東京 -x =y", "", "a" * 100, "café \u0000"]
    add(store, *(spoken(said, said, metadata={"t": said[:3]}) for said in texts))
    queries = [Query(word) for said in texts for word in words(said)]
    queries += [Query(where={"t": said[:3]}) for said in texts]

    def answers() -> list[list[str]]:
        with store.reading() as connection:
            return [[one.id for one in find(connection, query)] for query in queries]

    before = answers()
    with store.writing() as connection:
        # As a store was before there was a search.
        connection.execute(text("DROP TABLE example_words"))
        for column in ("conversation_hash", "source", "parent"):
            index = f"CREATE INDEX ix_examples_{column} ON examples ({column})"
            connection.execute(text(index))
        connection.execute(text("DROP TABLE expired_leases"))
        connection.execute(text("ALTER TABLE deliveries DROP COLUMN fault"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0003'"))
    assert all(before)
    again = open_store(store.engine.url.render_as_string(hide_password=False))
    again.close()
    assert answers() == before


def test_a_failed_write_leaves_no_words(store):
    with pytest.raises(ZeroDivisionError), store.writing() as connection:
        add_examples(connection, [spoken("word")], actor="test")
        raise ZeroDivisionError
    add(store, spoken("other"))
    assert found(store, "word") == []
    assert found(store, "other") == ["other"]


def test_texts_without_end_are_kept_and_found_by_their_beginning(store):
    unlike = " ".join(f"w{n}" for n in range(60_000))
    add(store, spoken(unlike, metadata={"all": [f"v{n}" for n in range(5000)]}))
    assert found(store, "w0 w100") == [unlike]
    assert found(store, where={"all": "v10"}) == [unlike]
    assert found(store, "w59999") == found(store, where={"all": "v4999"}) == []


# People.


def annotate(store, of: Example, annotator: str, status: str = "submitted", task="answer") -> None:
    given = Annotation(of.id, "answer", "yes", annotator, uuid.uuid4().hex, status=status)
    submit(store, replace(TASK, name=task), given, now=datetime.now(UTC))


def test_by_status_and_annotator(store, monkeypatch):
    examples = [spoken(f"{n}") for n in range(8)]
    add(store, *examples)
    annotate(store, examples[0], "ann")
    annotate(store, examples[1], "ann", "skipped")
    annotate(store, examples[2], "bob", "flagged")
    annotate(store, examples[3], "bob", "skipped")
    annotate(store, examples[3], "bob")  # an amendment: the newest counts
    annotate(store, examples[4], "ann", task="other")
    annotate(store, examples[5], "ann")
    annotate(store, examples[5], "bob", "flagged")
    with store.writing() as connection:
        decided = Resolution(examples[6].id, "answer", "yes", (), "lead")
        add_resolutions(connection, [decided], actor="lead")
        exclude(connection, {examples[7].id: "why"}, actor="test")
    cases = [
        ({"status": "submitted"}, "035"),
        ({"status": "submitted", "task": "other"}, "4"),
        ({"status": "skipped"}, "1"),
        ({"status": "flagged"}, "25"),
        ({"status": "flagged", "annotator": "ann"}, ""),
        ({"annotator": "ann"}, "015"),
        ({"annotator": "bob", "status": "submitted"}, "3"),
        ({"annotator": "eve"}, ""),
        ({"status": "unlabelled"}, "12467"),
        ({"status": "unlabelled", "task": "other"}, "0123567"),
        ({"status": "unlabelled", "annotator": "ann"}, "123467"),
        ({"status": "resolved"}, "6"),
        ({"status": "resolved", "task": "other"}, ""),
        ({"status": "excluded"}, "7"),
    ]
    # Whichever is gone through and whichever looked up, the same are found.
    for few, look_up in ((10_000, 15), (10_000, 0), (1, 15)):
        monkeypatch.setattr("burnish.store.search._FEW", few)
        monkeypatch.setattr("burnish.store.search._LOOK_UP", look_up)
        for fields, expected in cases:
            query = {"task": "answer", **fields}
            assert "".join(found(store, **query)) == expected, query
            assert found(store, "5", source="a.jsonl", **query) == ["5"] * ("5" in expected)


def test_a_status_that_there_is_not(store):
    with pytest.raises(InputError, match=r"did you mean 'flagged'\?"):
        found(store, status="flaged")
    for fields in ({"status": "skipped"}, {"annotator": "ann"}):
        with pytest.raises(InputError, match="say which"):
            found(store, **fields)


# Bulk actions.


@pytest.fixture
def many(store):
    add(
        store,
        *(spoken(f"word {n}", "yes", metadata={"odd": n % 2 == 1}) for n in range(PAGE + 500)),
    )
    return store


def all_ids(store, text: str = "", **fields) -> list[str]:
    with store.reading() as connection:
        return [one.id for one in find(connection, Query(text, limit=10_000, **fields))]


def entries(store, action: str) -> list[tuple[str, int]]:
    with store.reading() as connection:
        verify_log(connection)
        log = [entry for entry in read_log(connection) if entry["action"] == action]
    return [(entry["actor"], entry["payload"]["rows"]) for entry in reversed(log)]


def test_excluding_everything_found(many):
    assert bulk.exclude_all(many, Query("word -5", limit=3), " off ", actor="lead") == PAGE + 499
    assert entries(many, "exclude") == [("lead", PAGE), ("lead", 499)]
    with many.reading() as connection:
        excluded = read_exclusions(connection)
    assert set(excluded.values()) == {"off"}
    assert set(all_ids(many)) - set(excluded) == set(all_ids(many, "5"))
    # Done again, nothing is left to do and nothing to tell.
    assert bulk.exclude_all(many, Query("word -5"), "off", actor="lead") == 0
    assert len(entries(many, "exclude")) == 2


def test_including_again_what_was_excluded(many):
    everything, excluded = Query(), Query(status="excluded")
    assert everything.finds_everything
    assert Query(" -!", task="answer", after=3, limit=5).finds_everything
    assert not any(
        query.finds_everything
        for query in (excluded, Query("-x"), Query(where={"a": ""}), Query(source=""))
    )
    assert bulk.exclude_all(many, everything, "off", actor="lead") == PAGE + 500
    assert bulk.include_all(many, [TASK], Query("word 5"), actor=" rey ") == 1
    assert bulk.include_all(many, [TASK], excluded, actor="rey") == PAGE + 499
    assert entries(many, "include again") == [("rey", 1), ("rey", PAGE), ("rey", 499)]
    assert all_ids(many, status="excluded") == []
    assert bulk.include_all(many, [TASK], everything, actor="rey") == 0
    with pytest.raises(InputError, match="no such example"):
        bulk.include_all(many, [TASK], ["nobody"], actor="rey")


def test_assigning_and_prioritising(many):
    ids = all_ids(many, where={"odd": "true"})
    assert bulk.assign_all(many, TASK, ids[:3] * 2, ["ann"], actor="lead") == 3
    assert bulk.prioritise_all(many, TASK, Query(where={"odd": "true"}), 2.0, actor="lead") == 750
    with many.reading() as connection:
        assigned = select(assignments.c.example_id, assignments.c.annotator)
        assert sorted(connection.execute(assigned)) == [(id_, "ann") for id_ in sorted(ids[:3])]
        assert set(read_prioritised(connection, "answer", limit=9999)) == set(ids)
    assert entries(many, "assign")[0][0] == entries(many, "prioritise")[0][0] == "lead"


def test_making_gold_of_what_is_known(store):
    known, disputed, waiting, decided = (spoken(f"q{n}") for n in range(4))
    own = spoken("q4", "own")
    add(store, known, disputed, waiting, decided, own)
    annotate(store, known, "ann")
    for name, answer in (("ann", "x"), ("bob", "y")):
        given = Annotation(disputed.id, "answer", answer, name, uuid.uuid4().hex)
        submit(store, TASK, given, now=datetime.now(UTC))
    with store.writing() as connection:
        decision = Resolution(decided.id, "answer", "decided", (), "lead")
        add_resolutions(connection, [decision], actor="lead")
    done = bulk.make_gold(store, TASK, Query(), actor="lead")
    assert (done.made, done.without_answer) == (3, 2)
    with store.reading() as connection:
        rows = connection.execute(text("SELECT example_id, answer FROM gold"))
        gold = {row.example_id: row.answer for row in rows}
    assert gold == {known.id: "yes", decided.id: "decided", own.id: "own"}
    assert bulk.make_gold(store, TASK, [waiting.id], "told", actor="lead").made == 1


def test_bulk_actions_refuse_before_they_begin(many):
    ids = all_ids(many)
    with pytest.raises(InputError, match="no such example"):
        bulk.exclude_all(many, [*ids, "nobody"], "why", actor="lead")
    with pytest.raises(InputError, match="needs a reason"):
        bulk.exclude_all(many, Query(), "  ", actor="lead")
    with pytest.raises(InputError):
        bulk.assign_all(many, TASK, Query(), [], actor="lead")
    with pytest.raises(InputError, match="no priority"):
        bulk.prioritise_all(many, TASK, Query(), float("nan"), actor="lead")
    assert [entries(many, action) for action in ("exclude", "assign", "prioritise")] == [[], [], []]


# The documentation.

PAGE_OF_DOCS = (Path(__file__).parents[1] / "docs" / "search.md").read_text(encoding="utf-8")


def test_the_documented_filters_and_actions_are_these():
    for name in (*STATUSES, "where", "source", "status", "annotator", "task"):
        assert f"`{name}`" in PAGE_OF_DOCS
    for action in (
        bulk.exclude_all,
        bulk.include_all,
        bulk.assign_all,
        bulk.prioritise_all,
        bulk.make_gold,
    ):
        names = [*inspect.signature(action).parameters]
        documented = re.search(rf"`{action.__name__}\((.*)\)`", PAGE_OF_DOCS)
        assert documented
        assert [n.strip(" =") for n in documented[1].split(",")] == names
