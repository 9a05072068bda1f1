"""Labelling: the queue's exactness, agreement, resolution, interchange, status.

Run: pytest tests/test_label.py
"""

import csv
import json
import multiprocessing
import random
import signal
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from burnish.config import build_config
from burnish.errors import ConfigError, InputError, ProjectError
from burnish.label.agreement import (
    agreement,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    percent_agreement,
)
from burnish.label.guidelines import current_guidelines
from burnish.label.interchange import export_labels, import_labels
from burnish.label.queue import next_example, submit
from burnish.label.resolve import adjudicate, decide, open_disputes, read_dispute, resolve
from burnish.label.status import label_status
from burnish.project import init_project
from burnish.store import open_store
from burnish.store.annotations import read_annotations
from burnish.store.answers import read_answered, read_resolutions
from burnish.store.examples import add_examples
from burnish.store.findings import exclude
from burnish.store.log import verify_log
from burnish.tasks import Task, read_tasks
from burnish.types import Annotation, Conversation, Example, Message

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'burnish.db'}")
    yield store
    store.close()


def example(number: int) -> Example:
    return Example(Conversation((Message("user", f"question {number}"),)), source="test")


def fill(store, count: int) -> list[Example]:
    examples = [example(n) for n in range(count)]
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
    return examples


def answer(of: Example | str, annotator: str, text: str = "yes", **fields) -> Annotation:
    id_ = of if isinstance(of, str) else of.id
    client_id = fields.pop("client_id", None) or uuid.uuid4().hex
    return Annotation(id_, "answer", text, annotator, client_id, **fields)


def annotations_of(store) -> list[Annotation]:
    with store.reading() as connection:
        return list(read_annotations(connection))


# Agreement


def by_example(*raters: str) -> list[dict[int, str]]:
    """One text per rater, one word per example; a dot is a missing answer."""
    columns = zip(*(rater.split() for rater in raters), strict=True)
    return [{n: word for n, word in enumerate(column) if word != "."} for column in columns]


def from_counts(table: str) -> list[dict[int, int]]:
    """One line per example: how many raters chose each category."""
    rows = [[int(n) for n in line.split()] for line in table.strip().splitlines()]
    spread = [[c for c, n in enumerate(row) for _ in range(n)] for row in rows]
    return [dict(enumerate(answers)) for answers in spread]


# Fleiss 1971, table 1: 30 patients, 6 psychiatrists, 5 diagnoses.
FLEISS_1971 = """
0 0 0 6 0\n0 3 0 0 3\n0 1 4 0 1\n0 0 0 0 6\n0 3 0 3 0\n2 0 4 0 0\n0 0 4 0 2\n2 0 3 1 0
2 0 0 4 0\n0 0 0 0 6\n1 0 0 5 0\n1 1 0 4 0\n0 3 3 0 0\n1 0 0 5 0\n0 2 0 3 1\n0 0 5 0 1
3 0 0 1 2\n5 1 0 0 0\n0 2 0 4 0\n1 0 2 0 3\n0 0 0 0 6\n0 1 0 5 0\n0 2 0 1 3\n2 0 0 4 0
1 0 0 4 1\n0 5 0 1 0\n4 0 0 0 2\n0 2 0 4 0\n1 0 5 0 0\n0 0 0 0 6
"""
# Krippendorff 2011, sections A (binary), B (nominal, two observers) and C (missing answers).
KRIPPENDORFF = {
    0.095: ("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"),
    0.692: ("a a b b d c c c e d d a", "b a b b b c c c e d d d"),
    0.743: (
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ),
}


@pytest.mark.parametrize("alpha", KRIPPENDORFF)
def test_alpha_as_published(alpha):
    examples = by_example(*KRIPPENDORFF[alpha])
    assert krippendorff_alpha(examples).value == pytest.approx(alpha, abs=5e-4)


def test_fleiss_kappa_as_published():
    assert fleiss_kappa(from_counts(FLEISS_1971)).value == pytest.approx(0.430, abs=5e-4)


def test_cohen_kappa_as_published():
    # The usual textbook example: two readers of 50 grant proposals.
    counts = {"yes yes": 20, "yes no": 5, "no yes": 10, "no no": 15}
    examples = [
        dict(zip("ab", k.split(), strict=True)) for k, n in counts.items() for _ in range(n)
    ]
    assert cohen_kappa(examples, "a", "b").value == pytest.approx(0.4)
    assert percent_agreement(examples).value == pytest.approx(0.7)


def plain_alpha(examples):
    """From the definition, by walking over every pair of answers."""
    values = [list(e.values()) for e in examples if len(e) > 1]
    everything = [v for unit in values for v in unit]
    n = len(everything)
    observed = sum(
        (a != b) * 2 / (len(unit) - 1) for unit in values for a, b in combinations(unit, 2)
    )
    expected = sum((a != b) * 2 for a, b in combinations(everything, 2))
    return None if not expected else 1 - (n - 1) * observed / expected


def plain_cohen(examples):
    both = [(e["a"], e["b"]) for e in examples if "a" in e and "b" in e]
    if not both:
        return None
    observed = sum(a == b for a, b in both) / len(both)
    expected = (
        sum(sum(a == c for a, _ in both) * sum(b == c for _, b in both) for c in "xyz")
        / len(both) ** 2
    )
    return None if expected == 1 else (observed - expected) / (1 - expected)


def plain_fleiss(examples):
    examples = [list(e.values()) for e in examples if len(e) > 1]
    if len({len(e) for e in examples}) != 1:
        return None
    everything = [v for e in examples for v in e]
    observed = np.mean([np.mean([a == b for a, b in combinations(e, 2)]) for e in examples])
    expected = sum((everything.count(c) / len(everything)) ** 2 for c in "xyz")
    return None if expected == 1 else (observed - expected) / (1 - expected)


ratings = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"), max_size=3), max_size=8
)


@settings(deadline=None, max_examples=50)
@given(ratings)
def test_statistics_equal_their_definitions(examples):
    def same(ours, plain):
        assert (ours is None) == (plain is None)
        assert ours is None or ours == pytest.approx(plain, abs=1e-12)

    found = agreement(examples)
    same(found.krippendorff_alpha.value, plain_alpha(examples))
    same(found.fleiss_kappa.value, plain_fleiss(examples))
    if ("a", "b") in found.cohen_kappa:
        same(found.cohen_kappa["a", "b"].value, plain_cohen(examples))


def test_what_is_undefined_is_none():
    nothing = agreement([{"a": "x"}, {}])
    assert (nothing.percent.value, nothing.krippendorff_alpha.value) == (None, None)
    assert nothing.cohen_kappa == {}
    one_answer = agreement([{"a": "x", "b": "x"}] * 5)
    assert one_answer.percent.value == 1
    assert one_answer.cohen_kappa["a", "b"].value is None
    assert one_answer.fleiss_kappa.value is None
    assert one_answer.krippendorff_alpha.value is None
    uneven = agreement([{"a": "x", "b": "y"}, {"a": "x", "b": "x", "c": "x"}])
    assert uneven.fleiss_kappa.value is None
    assert uneven.krippendorff_alpha.value is not None


def test_intervals_cover_and_repeat():
    """Over 100 samples of a known population, most intervals hold its percent agreement."""
    rng = random.Random(1)
    covered = 0
    for _ in range(100):
        sample = [{"a": "x", "b": "x" if rng.random() < 0.8 else "y"} for _ in range(60)]
        estimate = percent_agreement(sample)
        assert estimate.low <= estimate.value <= estimate.high
        covered += estimate.low <= 0.8 <= estimate.high
    assert covered >= 88
    assert percent_agreement(sample) == percent_agreement(sample)
    assert percent_agreement(sample, seed=1) != percent_agreement(sample)


# Queue


def test_next_is_leased_renewed_answered_once(store):
    examples = fill(store, 3)
    task = Task()
    first = next_example(store, task, "ann", now=NOON)
    assert first == replace(examples[0], received_at=first.received_at)
    assert next_example(store, task, "ann", now=NOON).id == first.id
    assert next_example(store, task, "bob", now=NOON).id == examples[1].id
    submit(store, task, answer(first, "ann"), now=NOON)
    assert next_example(store, task, "ann", now=NOON).id == examples[2].id
    assert next_example(store, task, "cat", now=NOON) is None


def test_an_expired_lease_returns_but_the_late_answer_is_kept(store):
    examples = fill(store, 1)
    task = Task(lease_seconds=60)
    assert next_example(store, task, "ann", now=NOON).id == examples[0].id
    assert next_example(store, task, "bob", now=NOON + timedelta(seconds=59)) is None
    later = NOON + timedelta(seconds=61)
    assert next_example(store, task, "bob", now=later).id == examples[0].id
    assert next_example(store, task, "cat", now=later) is None
    submit(store, task, answer(examples[0], "ann"), now=later)
    # The late answer is enough, so Bob's slot goes to nobody else when he leaves.
    assert next_example(store, task, "cat", now=later + timedelta(seconds=61)) is None
    assert label_status(store, task).surplus == 0
    submit(store, task, answer(examples[0], "bob"), now=later)
    assert label_status(store, task).surplus == 1


def test_a_skip_frees_the_slot_for_others_only(store):
    examples = fill(store, 2)
    task = Task()
    next_example(store, task, "ann", now=NOON)
    submit(store, task, answer(examples[0], "ann", "", status="skipped"), now=NOON)
    assert next_example(store, task, "ann", now=NOON).id == examples[1].id
    submit(store, task, answer(examples[1], "ann"), now=NOON)
    assert next_example(store, task, "ann", now=NOON + timedelta(days=1)) is None
    assert next_example(store, task, "bob", now=NOON).id == examples[0].id


def test_a_flag_keeps_everybody_off_until_it_is_taken_back(store):
    examples = fill(store, 1)
    task = Task(overlap=2)
    next_example(store, task, "ann", now=NOON)
    flag = answer(examples[0], "ann", "not ours", status="flagged")
    submit(store, task, flag, now=NOON)
    assert next_example(store, task, "bob", now=NOON) is None
    assert open_disputes(store, task) == [examples[0].id]
    submit(store, task, answer(examples[0], "ann"), now=NOON)
    assert open_disputes(store, task) == []
    assert next_example(store, task, "bob", now=NOON).id == examples[0].id


def test_a_retried_submit_is_one_row_and_an_amendment_two(store):
    examples = fill(store, 1)
    task = Task()
    sent = answer(examples[0], "ann", "first")
    assert submit(store, task, sent, now=NOON).is_new
    again = submit(store, task, sent, now=NOON + timedelta(hours=1))
    assert not again.is_new
    assert again.annotation.created_at == "2026-01-05T12:00:00.000+00:00"
    assert len(annotations_of(store)) == 1
    with pytest.raises(InputError, match="another annotation"):
        submit(store, task, replace(sent, answer="other"), now=NOON)
    submit(store, task, answer(examples[0], "ann", "second"), now=NOON)
    assert [a.answer for a in annotations_of(store)] == ["first", "second"]
    with store.reading() as connection:
        [answered] = read_answered(connection)
    assert answered.conversation.answer.content == "second"
    assert label_status(store, task).annotators[0].submitted == 1


def test_excluded_and_resolved_examples_are_not_asked(store):
    examples = fill(store, 4)
    task = Task()
    next_example(store, task, "ann", now=NOON)
    with store.writing() as connection:
        exclude(connection, {examples[0].id: "duplicate", examples[1].id: "empty"}, actor="audit")
    adjudicate(store, task, {examples[2].id: "yes"}, person="eve")
    assert next_example(store, task, "ann", now=NOON).id == examples[3].id


def test_overlap_may_be_raised_and_lowered(store):
    examples = fill(store, 2)
    for one in examples:
        submit(store, Task(), answer(one, "ann"), now=NOON)
    assert next_example(store, Task(), "bob", now=NOON) is None
    assert next_example(store, Task(overlap=2), "bob", now=NOON).id == examples[0].id
    assert next_example(store, Task(), "cat", now=NOON) is None


def test_overlaps_complete_before_new_examples_begin(store):
    examples = fill(store, 5)
    task = Task(overlap=2)
    for _ in range(3):
        given_ = next_example(store, task, "ann", now=NOON)
        submit(store, task, answer(given_, "ann"), now=NOON)
    seen = []
    for _ in range(5):
        given_ = next_example(store, task, "bob", now=NOON)
        seen.append(given_.id)
        submit(store, task, answer(given_, "bob"), now=NOON)
    assert seen == [e.id for e in examples]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"text": " "}, "empty"),
        ({"text": "maybe"}, "not among the choices"),
        ({"annotator": " "}, "annotator's name"),
        ({"annotator": "rule:majority"}, "annotator's name"),
        ({"annotator": "a\nb"}, "annotator's name"),
        ({"of": "0" * 32}, "no such example"),
        ({"text": "\ud800"}, "surrogate"),
        ({"client_id": "x" * 129}, "client id"),
    ],
)
def test_what_cannot_be_kept_is_refused(store, fields, fault):
    examples = fill(store, 1)
    task = Task(kind="choose", choices=("yes", "no"))
    sent = answer(fields.pop("of", examples[0]), **{"annotator": "ann", **fields})
    with pytest.raises(InputError, match=fault):
        submit(store, task, sent, now=NOON)
    assert annotations_of(store) == []


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_events_keeps_the_overlap_exact(store, seed):
    """Random people ask, answer, skip, leave and return late; a plain model says what may be."""
    rng = random.Random(seed)
    examples = fill(store, 5)
    task = Task(overlap=2, lease_seconds=60)
    now = NOON
    shown: dict[str, tuple[str, datetime]] = {}
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for _ in range(120):
        now += timedelta(seconds=rng.choice([0, 1, 40]))
        person = rng.choice("abcd")
        if person not in shown or rng.random() < 0.3:
            got = next_example(store, task, person, now=now)
            if got is None:
                shown.pop(person, None)
                continue
            assert person not in said[got.id], "served again"
            shown[person] = (got.id, now + timedelta(seconds=60))
            live = {p for p, (id_, until) in shown.items() if id_ == got.id and until > now}
            live |= {p for p, status in said[got.id].items() if status == "submitted"}
            assert len(live) <= 2, "over-served"
        else:
            id_, _ = shown.pop(person)
            status = rng.choice(["submitted", "submitted", "skipped"])
            submit(store, task, answer(id_, person, status=status), now=now)
            said[id_][person] = status
    answers = Counter(a.example_id for a in annotations_of(store) if a.status == "submitted")
    assert sum(answers.values()) == sum(
        status == "submitted" for people in said.values() for status in people.values()
    )
    surplus = sum(max(0, n - 2) for n in answers.values())
    assert label_status(store, task).surplus == surplus
    assert set(answers) <= {e.id for e in examples}


def work(url: str, name: str, now: datetime, journal: str) -> None:
    """An annotator who answers until nothing is left, noting what was confirmed."""
    store, task, rng = open_store(url), Task(overlap=3), random.Random(name)
    with open(journal, "a") as confirmed:  # noqa: PTH123
        while (given_ := next_example(store, task, name, now=now)) is not None:
            sent = answer(given_, name)
            for _ in range(rng.choice([1, 1, 2])):
                submit(store, task, sent, now=now)
            confirmed.write(sent.client_id + "\n")
            confirmed.flush()


def test_killed_annotators_lose_and_double_nothing(tmp_path):
    """20 processes on one file, killed at random and started again; then the rest is finished."""
    url = f"sqlite:///{tmp_path / 'burnish.db'}"
    store = open_store(url)
    examples = fill(store, 25)
    rng = random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def start(person: int, now: datetime):
        arguments = (url, f"person {person}", now, str(tmp_path / f"{person}.txt"))
        process = context.Process(target=work, args=arguments)
        process.start()
        return process

    people = {n: start(n, NOON) for n in range(20)}
    killed = 0
    for _ in range(20):
        time.sleep(rng.random() * 0.05)
        person = rng.choice(list(people))
        people[person].kill()
        people[person].join()
        killed += people[person].exitcode == -signal.SIGKILL
        if rng.random() < 0.8:
            people[person] = start(person, NOON)
        else:
            del people[person]
    for process in people.values():
        process.join()
        assert process.exitcode == 0
    assert killed > 5, "nobody was killed at work"
    # The killed have left leases; when these have run out, others take over.
    later = NOON + timedelta(hours=1)
    for process in [start(n, later) for n in range(20, 24)]:
        process.join()
        assert process.exitcode == 0

    kept = annotations_of(store)
    confirmed = [id_ for path in tmp_path.glob("*.txt") for id_ in path.read_text().split()]
    assert set(confirmed) <= {a.client_id for a in kept}, "lost"
    assert len({(a.example_id, a.annotator) for a in kept}) == len(kept), "doubled"
    assert Counter(a.example_id for a in kept) == {e.id: 3 for e in examples}, "not exactly three"
    with store.reading() as connection:
        assert verify_log(connection).entries > len(kept)
    store.close()


@pytest.mark.parametrize("overlap", [1, 2])
def test_the_work_of_one_request_does_not_grow_with_the_project(tmp_path, overlap):
    """Counted in steps of SQLite's machine, which no other load on the computer disturbs."""

    def steps(count: int) -> int:
        store = open_store(f"sqlite:///{tmp_path / f'{count}.db'}")
        examples = fill(store, count)
        task = Task(overlap=overlap)
        write_rows(
            tmp_path / "half.jsonl",
            [
                {"example_id": e.id, "answer": "x", "annotator": "ann"}
                for e in examples[: count // 2]
            ],
        )
        import_labels(store, tmp_path / "half.jsonl", task, rejects=tmp_path)
        next_example(store, task, "bob", now=NOON)
        total = [0]

        def count_step() -> int:
            total[0] += 1
            return 0

        event.listen(
            store.engine,
            "checkout",
            lambda raw, *_: raw.set_progress_handler(count_step, 10),
        )
        for person in ("ann", "bob", "cat"):
            for _ in range(5):
                got = next_example(store, task, person, now=NOON)
                submit(store, task, answer(got, person), now=NOON)
        store.close()
        return total[0]

    assert steps(6000) < 1.2 * steps(2000)


# Resolution


def test_rules():
    assert decide(["a", "a ", "a\n"], "unanimous") == "a"
    assert decide(["a", "a", "b"], "unanimous") is None
    assert decide(["a", "b", "a"], "majority") == "a"
    assert decide(["a", "b"], "majority") is None
    assert decide(["a", "a", "b", "b"], "majority") is None
    assert decide([], "majority") is None


def test_rules_settle_and_people_outrank_them(store):
    one, two, three, alone = fill(store, 4)
    task = Task(overlap=3, rule="majority")
    for item, texts in ((one, "xxx"), (two, "xyx"), (three, "xyz"), (alone, "x")):
        for person, text in zip("abc", texts, strict=False):
            submit(store, task, answer(item, person, text), now=NOON)
    done = resolve(store, task)
    assert (done.added, done.open) == (2, 1)
    assert resolve(store, task).added == 0
    assert open_disputes(store, task) == [three.id]
    adjudicate(store, task, {three.id: "y", two.id: "y"}, person="eve")
    assert resolve(store, task).added == 0
    with store.reading() as connection:
        in_force = {r.example_id: r for r in read_resolutions(connection, task="answer")}
        answers = {a.example.id: a.conversation.answer for a in read_answered(connection)}
    assert in_force[one.id].resolved_by == "rule:majority"
    assert (in_force[two.id].answer, in_force[two.id].resolved_by) == ("y", "eve")
    assert len(in_force[two.id].annotation_ids) == 3
    assert [answers[e.id].content for e in (one, two, three, alone)] == ["x", "y", "y", "x"]
    dispute = read_dispute(store, task, three.id)
    assert [a.answer for a in dispute.annotations] == ["x", "y", "z"]


def test_an_amendment_reopens_what_a_rule_had_settled(store):
    [one] = fill(store, 1)
    task = Task(overlap=2)
    for person in "ab":
        submit(store, task, answer(one, person, "x"), now=NOON)
    assert resolve(store, task).added == 1
    submit(store, task, answer(one, "b", "y"), now=NOON)
    assert open_disputes(store, task) == [one.id]
    adjudicate(store, task, {one.id: "x"}, person="eve")
    assert open_disputes(store, task) == []


def test_adjudication_refuses_what_it_cannot_keep(store):
    [one] = fill(store, 1)
    task = Task(kind="choose", choices=("x", "y"))
    for decisions in ({one.id: "z"}, {one.id: "x", "0" * 32: "x"}, {one.id: ""}):
        with pytest.raises(InputError):
            adjudicate(store, task, decisions, person="eve")
    with store.reading() as connection:
        assert list(read_resolutions(connection, task="answer")) == []


# Status


def test_status_counts_everything(store):
    examples = fill(store, 6)
    task = Task(overlap=2)
    script = {"ann": "xxxx", "bob": "xyx"}
    for person, texts in script.items():
        for n, text in enumerate(texts):
            sent = answer(examples[n], person, text, seconds=float(n + 1))
            submit(store, task, sent, now=NOON)
    submit(store, task, answer(examples[4], "bob", "", status="skipped"), now=NOON)
    submit(store, task, answer(examples[5], "bob", "", status="flagged"), now=NOON)
    adjudicate(store, task, {examples[1].id: "x"}, person="eve")
    resolve(store, task)
    status = label_status(store, task)
    assert (status.examples, status.complete, status.begun, status.disputed) == (6, 3, 1, 1)
    assert (status.resolved, status.answers, status.surplus) == (3, 7, 0)
    # One for example 3, two for the skipped 4; 5 waits for a person first.
    assert status.answers_left == 3
    assert status.seconds_left == 3 * 2.0
    ann, bob = status.annotators
    assert (ann.submitted, ann.agreement, ann.resolved, ann.median_seconds) == (4, 1.0, 3, 2.5)
    assert (bob.submitted, bob.skipped, bob.flagged) == (3, 1, 1)
    assert bob.agreement == pytest.approx(2 / 3)
    assert status.agreement.percent.value == pytest.approx(2 / 3)


def test_status_of_nothing(store):
    status = label_status(store, Task())
    assert (status.examples, status.answers_left, status.seconds_left) == (0, 0, None)
    assert status.agreement.percent.value is None


# Interchange


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


HARD_TEXTS = [
    "a,b",
    'say "no"',
    "two\nlines",
    "cr\r\nlf",
    "=1+1",
    " spaced ",
    "naïve 北京 🙂",
    "[{",
    "\t",
]


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_labels_survive_the_round_trip(tmp_path, store, format):
    there = open_store(f"sqlite:///{tmp_path / 'there.db'}")
    task = Task()
    turns = (Message("system", "Be\nbrief, please."), Message("user", "Hi"))
    examples = fill(store, len(HARD_TEXTS))
    examples.append(Example(Conversation(turns), source="chat"))
    with store.writing() as connection, there.writing() as other:
        add_examples(connection, examples, actor="test")
        add_examples(other, examples, actor="test")
    for n, text in enumerate(HARD_TEXTS):
        status = "submitted" if text.strip() else "skipped"
        seconds = n / 3 if n % 2 else None
        sent = answer(examples[n], f"{text.strip()[:3].strip()}é", text, status=status)
        sent = replace(sent, guideline_version="v1", seconds=seconds)
        if "\n" not in sent.annotator:
            submit(store, task, sent, now=NOON)
    submit(store, task, answer(examples[-1], "ann", "", status="flagged"), now=NOON)
    path = tmp_path / f"labels.{format}"
    count = len(annotations_of(store))
    assert export_labels(store, path, task, format=format) == count >= len(HARD_TEXTS)
    result = import_labels(there, path, task, rejects=tmp_path)
    assert (result.added, result.known, result.rejects) == (count, 0, None)
    assert annotations_of(there) == annotations_of(store)
    assert label_status(there, task) == label_status(store, task)
    # Where the examples have other ids, the prompt finds them.
    by_prompt = path.read_bytes().replace(examples[-1].id.encode(), b"")
    path.write_bytes(by_prompt.replace(examples[0].id.encode(), b""))
    assert import_labels(there, path, task, rejects=tmp_path).known == count
    there.close()


def test_reimport_adds_nothing_with_or_without_client_ids(store, tmp_path):
    examples = fill(store, 3)
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "answer", "seconds"])
        writer.writerows([[e.conversation.messages[0].content, "x", 2] for e in examples])
        writer.writerow(["Question  0", "x", ""])
    task = Task()
    first = import_labels(store, path, task, annotator="ann", rejects=tmp_path)
    assert (first.added, first.known) == (3, 1)
    again = import_labels(store, path, task, annotator="ann", rejects=tmp_path)
    assert (again.added, again.known) == (0, 4)
    other = import_labels(store, path, task, annotator="bob", rejects=tmp_path)
    assert other.added == 3
    assert {a.seconds for a in annotations_of(store)} == {2.0}


def test_rows_that_do_not_fit_are_refused_with_line_and_reason(store, tmp_path):
    examples = fill(store, 2)
    twin = replace(example(0), source="elsewhere")
    with store.writing() as connection:
        add_examples(connection, [twin], actor="test")
    ok = {"example_id": examples[1].id, "answer": "yes", "annotator": "ann", "client_id": "1"}
    rows = [
        ok,
        {**ok, "answer": "no"},
        {**ok, "example_id": "nonsense", "client_id": "2"},
        {"prompt": "question 0", "answer": "yes", "annotator": "ann"},
        {"prompt": "never asked", "answer": "yes", "annotator": "ann"},
        {**ok, "client_id": "3", "answer": " "},
        {**ok, "client_id": "4", "annotator": None},
        {**ok, "client_id": "5", "seconds": "quick"},
        {**ok, "client_id": "6", "status": "done"},
        {**ok, "client_id": "7", "task": "other"},
        {**ok, "client_id": "8", "created_at": "yesterday"},
        {**ok, "client_id": "9", "answer": ["yes"]},
        {**ok, "client_id": "10", "answer": "\ud800"},
    ]
    path = write_rows(tmp_path / "labels.jsonl", rows)
    path.write_text(path.read_text() + "{broken\n")
    result = import_labels(store, path, Task(), rejects=tmp_path / "rejects")
    assert (result.added, result.known) == (1, 0)
    refused = [json.loads(line) for line in result.rejects.read_text().splitlines()]
    assert sorted(r["line"] for r in refused) == list(range(2, 15))
    reasons = {r["line"]: r["reason"] for r in refused}
    expected = {
        2: "came with another",
        3: "no such example: nonsense",
        4: "several examples",
        5: "no example has this prompt",
        6: "empty",
        7: "annotator's name",
        8: "seconds",
        9: "unknown status",
        10: "another task",
        11: "ISO 8601",
        12: "not a text",
        13: "surrogate",
        14: "broken JSON",
    }
    for line, reason in expected.items():
        assert reason in reasons[line]
    assert sum(result.rejected.values()) == 13
    # What a mended file no longer refuses is not left lying about.
    write_rows(path, rows[:1])
    assert import_labels(store, path, Task(), rejects=tmp_path / "rejects").rejects is None
    assert list((tmp_path / "rejects").iterdir()) == []


def test_a_file_without_the_columns_is_one_error(store, tmp_path):
    path = write_rows(tmp_path / "labels.jsonl", [{"promt": "question 0", "label": "x"}] * 3)
    with pytest.raises(InputError) as caught:
        import_labels(store, path, Task(), rejects=tmp_path)
    message = str(caught.value)
    assert "labels.jsonl:1" in message
    assert "no column example_id or prompt; did you mean 'promt'?" in message
    assert "no column answer" in message
    assert "--annotator" in message


def test_conversations_are_found_by_their_turns(store, tmp_path):
    turns = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "draft"))
    with store.writing() as connection:
        add_examples(connection, [Example(Conversation(turns), source="chat")], actor="test")
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows = [
        {"prompt": prompt, "answer": "x", "annotator": "ann"},
        {"prompt": json.dumps(prompt), "answer": "y", "annotator": "bob"},
    ]
    path = write_rows(tmp_path / "labels.jsonl", rows)
    assert import_labels(store, path, Task(), rejects=tmp_path).added == 2


def test_imported_answers_fill_the_slots(store, tmp_path):
    examples = fill(store, 3)
    task = Task(overlap=2)
    assert next_example(store, task, "cat", now=NOON).id == examples[0].id
    rows = [{"example_id": examples[0].id, "answer": "x", "annotator": n} for n in ("ann", "bob")]
    rows.append({"example_id": examples[1].id, "answer": "x", "annotator": "ann"})
    import_labels(store, write_rows(tmp_path / "l.jsonl", rows), task, rejects=tmp_path)
    assert next_example(store, task, "dan", now=NOON).id == examples[1].id
    assert next_example(store, task, "ann", now=NOON).id == examples[2].id
    # Cat had begun before the import: what she sends is kept, beyond the overlap.
    submit(store, task, answer(examples[0], "cat"), now=NOON)
    assert label_status(store, task).surplus == 1


# Configuration


def test_the_label_table_is_checked_as_a_whole(tmp_path):
    project = init_project(tmp_path)
    assert read_tasks(project) == {"answer": Task()}
    values = {"overlap": 0, "lease_seconds": -1, "choices": ["a", "a "], "name": ""}
    with pytest.raises(ConfigError) as caught:
        build_config(Task, values, where="burnish.toml [label]")
    for key in values:
        assert key in str(caught.value)
    with pytest.raises(ConfigError, match="did you mean 'overlap'"):
        build_config(Task, {"overlapp": 2}, where="burnish.toml [label]")


def test_guidelines_are_versioned_by_content(tmp_path, store):
    project = init_project(tmp_path / "project")
    task = Task()
    first = current_guidelines(store, project, task)
    assert current_guidelines(store, project, task) == first
    (project.root / "guidelines.md").write_text("# New rules\n")
    second = current_guidelines(store, project, task)
    assert second.version != first.version
    assert second.text == "# New rules\n"
    (project.root / "guidelines.md").unlink()
    with pytest.raises(ProjectError, match="guidelines cannot be read"):
        current_guidelines(store, project, task)
