"""Shared by the tests of labels in and out: examples, answers of every kind, stores of them."""

import itertools
import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import strategies as st

from burnish.label.interchange.formats import TOOLS
from burnish.label.interchange.rows import read_row
from burnish.label.order import set_gold
from burnish.records.answers import checked_answer
from burnish.store import Store
from burnish.store.annotations import add_annotations, read_annotations
from burnish.store.drafts import Draft, add_drafts
from burnish.store.examples import add_examples
from burnish.store.labelled import Gold, Labelled, drafts_after, gold_after
from burnish.store.slots import settle_slots
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
FORMATS = ("jsonl", "csv", *TOOLS)
SUFFIXES = {"csv": "csv", "label_studio": "json", "argilla": "json"}


def user(*contents: str) -> Conversation:
    """Turns of user and assistant by turns, the user's first."""
    roles = itertools.cycle(("user", "assistant"))
    return Conversation(tuple(Message(r, c) for r, c in zip(roles, contents, strict=False)))


def example(number: int) -> Example:
    return Example(user(f"question {number}"), source="test")


def fill(store: Store, examples: list[Example]) -> list[Example]:
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
    return examples


def answer(of: Example, annotator: str, text: str = "yes", **fields) -> Annotation:
    client_id = fields.pop("client_id", None) or uuid.uuid4().hex
    return Annotation(of.id, "answer", text, annotator, client_id, **fields)


def annotations_of(store: Store) -> list[Annotation]:
    with store.reading() as connection:
        return list(read_annotations(connection))


def everything_in(store: Store, task: Task) -> tuple:
    """Annotations, drafts and gold answers, whatever the order they came in."""
    with store.reading() as connection:
        drafts = {replace(d, created_at=None) for _, d, _ in drafts_after(connection, task.name, 0)}
        gold = {replace(g, created_at=None) for _, g, _ in gold_after(connection, task.name, "")}
        return set(read_annotations(connection, task=task.name)), drafts, gold


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_list(path, records):
    path.write_text(json.dumps(records, ensure_ascii=False, indent=1))
    return path


def refused(result) -> dict[int, str]:
    lines = result.rejects.read_text().splitlines() if result.rejects else ()
    return {row["line"]: row["reason"] for row in map(json.loads, lines)}


TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
        st.sampled_from(["\r\n", '"', "🙂", "👩‍🚒", "é", "=1+1", "[{", "\u2028", "\ufeff"]),
    ),
    min_size=1,
    max_size=4,
).map("".join)
WORDS = TEXTS.filter(str.strip)
CHOICES = ("billing", "de livery", "ό, 🙂")
TASKS = {
    kind: Task(kind=kind, choices=CHOICES if kind in ("choose", "choose_many", "spans") else ())
    for kind in (
        *("write", "edit", "choose", "choose_many", "rate", "rank", "spans", "dialogue", "accept"),
    )
}
CANDIDATES = ("first", "second 🙂", "third")
PAIRS = [(name, kind) for name, tool in TOOLS.items() for kind in tool.kinds]


def answers(kind: str, text: str) -> st.SearchStrategy[str]:
    """Answers of a kind about an example whose last user turn is `text`."""
    choice = st.sampled_from(CHOICES)
    match kind:
        case "write" | "edit":
            return WORDS
        case "choose":
            return choice
        case "choose_many":
            return st.lists(choice, unique=True).map(json.dumps)
        case "rate":
            return st.integers(1, 5).map(str)
        case "rank":
            order = st.permutations(range(3))
            return st.tuples(order, st.integers(1, 2)).map(
                lambda drawn: json.dumps([drawn[0][: drawn[1]], drawn[0][drawn[1] :]])
            )
        case "spans":
            edges = st.tuples(st.integers(0, len(text) - 1), st.integers(1, len(text)))
            span = st.tuples(edges.filter(lambda e: e[0] < e[1]), choice).map(
                lambda drawn: {"start": drawn[0][0], "end": drawn[0][1], "label": drawn[1]}
            )
            return st.lists(span, max_size=3, unique_by=json.dumps).map(json.dumps)
        case "dialogue":
            turns = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=2)
            return turns.map(lambda pairs: json.dumps(turns_of(*itertools.chain(*pairs))))
        case _:
            reject = WORDS.map(lambda reason: {"verdict": "reject", "reason": reason.strip()})
            return st.one_of(st.just({"verdict": "accept"}), reject).map(json.dumps)


def turns_of(*contents: str) -> list[dict]:
    return user(*contents).to_json()["messages"]


@st.composite
def labelled_examples(draw: st.DrawFn, kind: str) -> Labelled:
    text = draw(WORDS)
    turns = (text, draw(WORDS)) if draw(st.booleans()) or kind == "accept" else (text,)
    metadata = {"candidates": list(CANDIDATES)} if kind == "rank" else {}
    shown = Example(user(*turns), "test", metadata)
    task = TASKS[kind]
    given = draw(st.lists(annotations(shown, kind, text), min_size=1, max_size=4))
    given = [replace(a, client_id=f"{n} {a.client_id}") for n, a in enumerate(given)]
    proposed = draw(st.lists(st.one_of(WORDS, answers(kind, text)), max_size=2, unique=True))
    drafts = [Draft.of(shown.id, "answer", t, "model/7") for t in proposed]
    gold = draw(st.none() | answers(kind, text))
    if gold is not None:
        gold = Gold(shown.id, "answer", checked_answer(gold, task, shown, CANDIDATES), "eve")
    return Labelled(shown.id, shown, given, drafts, gold)


@st.composite
def annotations(draw: st.DrawFn, shown: Example, kind: str, text: str) -> Annotation:
    status = draw(st.sampled_from(["submitted"] * 4 + ["skipped", "flagged", "withdrawn"]))
    said = draw(answers(kind, text)) if status == "submitted" else draw(st.just("") | WORDS)
    if status == "submitted":
        said = checked_answer(said, TASKS[kind], shown, CANDIDATES)
    return Annotation(
        shown.id,
        "answer",
        said,
        draw(st.sampled_from(["ann", "Bob É", "label-studio:7", f"argilla:{uuid.UUID(int=7)}"])),
        draw(WORDS.map(str.strip).filter(bool)),
        draw(st.sampled_from(["", "v1"])),
        draw(st.none() | st.floats(0, 1e6)),
        status,
        draw(st.sampled_from(["2026-01-05T12:00:00.000+00:00", "2026-01-05T12:00:01.250+00:00"])),
        draw(st.sampled_from([None, "d" * 32])),
        draw(st.none() | st.floats(0, 1)),
    )


def written(tool: str, labelled: Labelled, kind: str) -> list[dict]:
    """The records as they come out of a file."""
    records = list(TOOLS[tool].write(labelled, TASKS[kind]))
    return json.loads(json.dumps(records, ensure_ascii=False).encode())


def said_in(rows: Iterator, kind: str) -> list:
    values = [{k: v for k, v in row.items() if v is not None and v != ""} for row in rows]
    return [read_row(row, TASKS[kind], "nobody") for row in values]


def without_field(record: dict) -> dict:
    """The record as a tool's own user would have made it."""
    bare = {key: value for key, value in record.items() if key != "burnish"}
    return bare | {key: {} for key in ("meta", "metadata") if key in bare}


CHAT = Conversation(
    (Message("system", "Be brief. 🙂"), *user("Hi", "Hello", "And\r\nthen?").messages)
)
SAID = {
    "write": ("yes", 'say "no",\r\nplease 🙂'),
    "edit": ("yes", "=1+1"),
    "choose": ("billing", "ό, 🙂"),
    "choose_many": ('["billing","ό, 🙂"]', "[]"),
    "rate": ("1", "5"),
    "rank": ("[[1],[0,2]]", "[[2],[1],[0]]"),
    "spans": ('[{"end":2,"label":"billing","start":0}]', "[]"),
    "dialogue": (json.dumps(turns_of("a", "b")), json.dumps(turns_of("a", "🙂", "c", "d"))),
    "accept": ('{"verdict":"accept"}', '{"reason":"no, 🙂","verdict":"reject"}'),
}


def label_all_kinds(store: Store) -> list[Example]:
    """Every kind's task on the same examples, with every status, drafts and gold answers."""
    ranked = {"candidates": list(CANDIDATES)}
    examples = [
        Example(user("🙂 first?", "It is."), "test", ranked),
        Example(CHAT.answered("Then 🙂."), "test", ranked),
        Example(user("nobody has seen this"), "test"),
    ]
    fill(store, examples)
    for kind, (first, second) in SAID.items():
        task = replace(TASKS[kind], name=kind)
        first = checked_answer(first, task, examples[0], CANDIDATES)
        second = checked_answer(second, task, examples[1], CANDIDATES)
        with store.writing() as connection:
            texts = CANDIDATES[:2] if kind == "rank" else (first, "?")
            drafts = [Draft.of(e.id, kind, text, "m 🙂") for e in examples[:2] for text in texts]
            # A candidate that came after the ranking.
            add_drafts(connection, [*drafts, Draft.of(examples[1].id, kind, "late", "m")])
            said = [
                (examples[0], "ann", second, "submitted"),
                (examples[0], "bob", "a note", "skipped"),
                (examples[0], "ann", first, "submitted"),
                (examples[1], "label-studio:7", second, "submitted"),
                (examples[1], "bob", second, "submitted"),
                (examples[1], "bob", second, "withdrawn"),
                (examples[1], "cat", "not ours, 🙂", "flagged"),
            ]
            batch = [
                Annotation(
                    e.id,
                    kind,
                    text,
                    person,
                    f"{kind} {n}",
                    "v1" if n % 2 else "",
                    n / 3 if n % 2 else None,
                    status,
                    f"2026-01-05T12:00:0{n}.000+00:00",
                    drafts[0].id if n == 2 else None,
                    0.25 if n == 2 else None,
                )
                for n, (e, person, text, status) in enumerate(said)
            ]
            add_annotations(connection, batch, actor="test")
            settle_slots(connection, task, batch)
        set_gold(store, task, {examples[0].id: first}, "eve")
    return examples
