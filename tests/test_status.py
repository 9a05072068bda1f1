"""Progress, agreement over a store, and the quote. Run: pytest tests/test_status.py"""

import contextlib
import json
import random
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from burnish.cli import main
from burnish.errors import InputError
from burnish.label import status as status_module
from burnish.label.agreement import agreement, comparable, similarity
from burnish.label.bulk import exclude_all
from burnish.label.guidelines import current_guidelines
from burnish.label.order import remove_gold, set_gold
from burnish.label.queue import next_item, submit, undo_last
from burnish.label.quote import FEWEST_ANSWERS, quote, status_and_quote
from burnish.label.resolve import adjudicate, open_disputes, resolve
from burnish.label.status import label_agreement, label_status
from burnish.store import open_store
from burnish.store.annotations import add_annotations, read_annotations
from burnish.store.answers import read_given
from burnish.store.examples import add_examples, read_examples
from burnish.store.findings import read_exclusions
from burnish.store.guidelines import add_guidelines
from burnish.store.progress import read_ratings
from burnish.store.slots import settle_slots
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message
from studios import Studio, example

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
CHOICES = ("x", "y", "z")
TASK = Task(kind="choose", choices=CHOICES, overlap=2)


@pytest.fixture
def sqlite_store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/burnish.db")
    yield opened
    opened.close()


def fill(store, count: int) -> list[Example]:
    messages = ((Message("user", f"question {n}"),) for n in range(count))
    examples = [Example(Conversation(m), source="test") for m in messages]
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
    return examples


def say(store, of: Example | str, annotator: str, text: str = "x", task=TASK, **fields) -> None:
    id_ = of if isinstance(of, str) else of.id
    now = fields.pop("now", NOON)
    said = Annotation(id_, task.name, text, annotator, uuid.uuid4().hex, **fields)
    submit(store, task, said, now=now)


def by_name(people):
    return {person.annotator: person for person in people}


def test_status_counts_everything(store):
    examples = fill(store, 6)
    for person, texts in {"ann": "xxxx", "bob": "xyx"}.items():
        for n, text in enumerate(texts):
            say(store, examples[n], person, text, seconds=float(n + 1))
    say(store, examples[4], "bob", "", status="skipped")
    say(store, examples[5], "bob", "", status="flagged")
    adjudicate(store, TASK, {examples[1].id: "x"}, person="eve")
    resolve(store, TASK)
    status = label_status(store, TASK)
    assert (status.examples, status.complete, status.begun, status.disputed) == (6, 3, 1, 1)
    assert (status.resolved, status.answers, status.surplus) == (3, 7, 0)
    # One for example 3, two for the skipped 4; 5 waits for a person first.
    assert status.answers_left == 3
    ann, bob = status.annotators
    assert (ann.submitted, ann.skipped, ann.flagged, ann.median_seconds) == (4, 0, 0, 2.5)
    assert (bob.submitted, bob.skipped, bob.flagged, bob.median_seconds) == (3, 1, 1, 2.0)
    measured = label_agreement(store, TASK)
    values = {m.name: m.estimate.value for m in measured.agreement.measures}
    assert values["Percent"] == pytest.approx(2 / 3)
    people = by_name(measured.annotators)
    assert (people["ann"].resolved.value, people["ann"].resolved.examples) == (1, 3)
    assert people["bob"].resolved.value == pytest.approx(2 / 3)
    assert people["bob"].gold.value is None


@pytest.mark.parametrize("task", [Task(), TASK, Task(kind="rate")], ids=lambda task: task.kind)
def test_status_of_nothing(store, task):
    status = label_status(store, task)
    assert (status.examples, status.answers_left) == (0, 0)
    assert status.annotators == []
    measured = label_agreement(store, task)
    assert measured.agreement.examples == 0
    assert measured.by_version == []
    assert all(m.estimate.value is None for m in measured.agreement.measures)
    assert measured.annotators == []


def recount(store, task: Task) -> dict[str, object]:
    """What `label_status` says, by walking over everything that was ever said."""
    with store.reading() as connection:
        excluded = set(read_exclusions(connection))
        ids = [e.id for e in read_examples(connection) if e.id not in excluded]
        given = read_given(connection, task.name, ids)
    gold = {id_ for id_, said in given.items() if said.gold is not None}
    counts: Counter[str] = Counter()
    people: Counter[tuple[str, str]] = Counter()
    for id_, said in given.items():
        if id_ in gold:
            people.update((a.annotator, "gold") for a in said.submitted)
            continue
        people.update((a.annotator, a.status) for a in said.newest)
        answers, resolved = len(said.submitted), said.resolution is not None
        full = answers >= task.overlap
        counts["resolved"] += resolved
        counts["complete"] += resolved or (full and not said.is_flagged)
        counts["begun"] += 0 < answers < task.overlap and not resolved and not said.is_flagged
        counts["answers"] += answers
        counts["surplus"] += max(0, answers - task.overlap)
        if not resolved and not said.is_flagged:
            counts["answers_left"] += max(0, task.overlap - answers)
    names = "complete", "begun", "resolved", "answers", "surplus", "answers_left"
    return {
        **{name: counts[name] for name in names},
        "examples": len(ids) - len(gold),
        "gold": len(gold),
        "disputed": len(open_disputes(store, task)),
        "people": people,
    }


def check_against_recount(store, task: Task) -> None:
    status = label_status(store, task)
    people = Counter()
    for person in status.annotators:
        for kind in ("submitted", "skipped", "flagged", "gold"):
            people[person.annotator, kind] = getattr(person, kind)
    wanted = recount(store, task)
    found = {name: getattr(status, name) for name in wanted if name != "people"}
    assert found | {"people": +people} == wanted


def act(store, task: Task, rng: random.Random, examples: list[Example], now: datetime) -> None:
    """One thing that people do, at random."""
    who, one = rng.choice("abcd"), rng.choice(examples)
    match rng.choices(
        ["work", "leave", "amend", "skip", "flag", "undo", "decide", "rule", "exclude", "gold"],
        [30, 5, 5, 4, 3, 6, 4, 2, 1, 2],
    )[0]:
        case "work":
            item = next_item(store, task, who, now=now)
            if item is not None:
                say(store, item.example.id, who, rng.choice(CHOICES), now=now, seconds=2.0)
        case "leave":
            next_item(store, task, who, now=now)
        case "amend":
            say(store, one, who, rng.choice(CHOICES), now=now)
        case "skip":
            say(store, one, who, "", status="skipped", now=now)
        case "flag":
            say(store, one, who, "why?", status="flagged", now=now)
        case "undo":
            undo_last(store, task, who, now=now)
        case "decide":
            adjudicate(store, task, {one.id: rng.choice(CHOICES)}, person="eve")
        case "rule":
            resolve(store, task)
        case "exclude":
            exclude_all(store, [one.id], "doubtful", actor="eve")
        case "gold":
            if rng.random() < 0.7:
                set_gold(store, task, {one.id: rng.choice(CHOICES)}, "eve")
            else:
                remove_gold(store, task, [one.id], "eve")


@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_a_walk_over_everything(store, seed):
    """Whatever people do in whatever order, the counts are those of all they said."""
    rng = random.Random(seed)
    task = replace(TASK, lease_seconds=300, gold_every=rng.choice([0, 3]))
    examples = fill(store, 25)
    now = NOON
    for step in range(80):
        now += timedelta(seconds=rng.randrange(60))
        act(store, task, rng, examples, now)
        if step % 20 == 19:
            check_against_recount(store, task)
            check_against_recount(store, replace(task, overlap=3))


def test_agreement_is_that_of_newest_answers(store):
    examples = fill(store, 4)
    for one in examples:
        say(store, one, "ann", "x")
        say(store, one, "bob", "y")
        say(store, one, "bob", "x")
    say(store, examples[0], "ann", "", status="skipped")
    exclude_all(store, [examples[1].id], "doubtful", actor="eve")
    set_gold(store, TASK, {examples[2].id: "y"}, "eve")
    measured = label_agreement(store, TASK)
    assert measured.agreement.examples == 1
    assert {m.estimate.value for m in measured.agreement.measures if m.name == "Percent"} == {1}
    for person in measured.annotators:
        assert (person.gold.value, person.gold.examples) == (0, 1)


def walked(store, task: Task, version: str | None = None) -> list[dict[str, str]]:
    """Each example's newest answers by annotator, of one version or of all."""
    newest: dict[str, dict[str, Annotation]] = {}
    with store.reading() as connection:
        known = (r.example_id for r in read_ratings(connection, task.name) if r.gold is not None)
        apart = {*read_exclusions(connection), *known}
        for said in read_annotations(connection, task=task.name):
            if said.example_id not in apart and version in (None, said.guideline_version):
                newest.setdefault(said.example_id, {})[said.annotator] = said
    everybody = (sorted(newest[id_].items()) for id_ in sorted(newest))
    return [{who: a.answer for who, a in said if a.status == "submitted"} for said in everybody]


@pytest.mark.parametrize("kind", ["choose", "rate", "choose_many", "write"])
def test_agreement_by_version_is_that_of_its_answers(sqlite_store, kind):
    """Whatever people said, took back and said again, under whichever version."""
    rng = random.Random(kind)
    task = Task(kind=kind, choices=CHOICES if kind.startswith("choose") else ())
    examples = fill(sqlite_store, 30)
    answers = {
        "choose": CHOICES,
        "rate": "12345",
        "choose_many": ['["x"]', '["x","y"]', "[]"],
        "write": ["a long answer", "a longer answer", "none"],
    }[kind]
    for _ in range(300):
        one, who = rng.choice(examples), rng.choice("abcd")
        fields = {"task": task, "guideline_version": rng.choice(["old", "new"])}
        match rng.choices(["say", "skip", "undo"], [20, 2, 3])[0]:
            case "say":
                say(sqlite_store, one, who, rng.choice(answers), **fields)
            case "skip":
                say(sqlite_store, one, who, "", status="skipped", **fields)
            case "undo":
                undo_last(sqlite_store, task, who, now=NOON)
    exclude_all(sqlite_store, [examples[0].id], "doubtful", actor="eve")
    set_gold(sqlite_store, task, {examples[1].id: answers[0]}, "eve")
    adjudicate(sqlite_store, task, {one.id: answers[0] for one in examples[:20]}, person="eve")
    measured = label_agreement(sqlite_store, task)
    assert measured.agreement == agreement(task, walked(sqlite_store, task))
    assert {row.version for row in measured.by_version} == {"old", "new"}
    for row in measured.by_version:
        said = walked(sqlite_store, task, row.version)
        alone = agreement(task, said)
        shared = [answers for answers in said if len(answers) > 1]
        assert row.measure == alone.measures[0]
        assert row.percent == {m.name: m.estimate for m in alone.measures}["Percent"]
        assert row.examples == alone.examples == len(shared)
        assert row.annotators == len({who for answers in shared for who in answers})
        assert row.since is None
    # Beside the right answers, by walking.
    for person in measured.annotators:
        alike = [
            similarity(comparable(said[person.annotator], task), comparable(answers[0], task), task)
            for said in resolved_answers(sqlite_store, task)
            if person.annotator in said and len(said) > 1
        ]
        assert person.resolved.examples == len(alike)
        assert person.resolved.value == pytest.approx(np.mean(alike))


def resolved_answers(store, task: Task) -> list[dict[str, str]]:
    with store.reading() as connection:
        rated = list(read_ratings(connection, task.name))
    return [one.answers for one in rated if one.resolved is not None and one.gold is None]


def test_versions_stand_in_the_order_they_came_into_force(store):
    """Half agree under the first guidelines, all but one in twenty under the second: it rose."""
    examples = fill(store, 80)
    texts = {"first": "Judge.", "second": "Judge by the rules.", "never used": "Judge well."}
    with store.writing() as connection:
        versions = {
            name: add_guidelines(connection, TASK.name, text, by="eve")
            for name, text in texts.items()
        }
        # The first text came back: it is the version it was.
        add_guidelines(connection, TASK.name, texts["first"], by="eve")
    for n, one in enumerate(examples):
        name, same = ("first", n % 2) if n < 40 else ("second", n % 20)
        for who in "ab":
            answer = CHOICES[n % 3] if who == "a" or same else CHOICES[(n + 1) % 3]
            say(store, one, who, answer, guideline_version=versions[name])
    say(store, examples[0], "c", "x", guideline_version="elsewhere")
    say(store, examples[0], "d", "x", guideline_version="elsewhere")
    say(store, examples[1], "c", "x")
    elsewhere, first, second = label_agreement(store, TASK).by_version
    assert (elsewhere.version, elsewhere.since, elsewhere.examples) == ("elsewhere", None, 1)
    # One answer was ever given: α says nothing, and so there is no change from it.
    assert (elsewhere.measure.estimate.value, elsewhere.percent.value) == (None, 1)
    assert (first.version, first.examples, first.annotators) == (versions["first"], 40, 2)
    assert (second.version, second.examples, second.annotators) == (versions["second"], 40, 2)
    assert first.since < second.since
    assert (first.percent.value, second.percent.value) == (0.5, 0.95)
    assert first.change is None
    rise = second.measure.estimate.value - first.measure.estimate.value
    assert second.change.value == pytest.approx(rise)
    assert 0 < second.change.low < rise < second.change.high


def test_versions_are_shown_on_every_skin(tmp_path, monkeypatch, capsys):
    """The page, the API and the command say the same of each version."""
    toml = '[tasks.intent]\nchoices = ["x", "y"]\noverlap = 2\n'
    asked = [example(n) for n in range(8)]
    with contextlib.closing(Studio(tmp_path, toml, examples=asked)) as one:
        for n, item in enumerate(asked):
            if n % 4 == 0:
                (tmp_path / "guidelines.md").write_text(f"Rule {n}.")
            version = current_guidelines(one.store, one.project, one.tasks["intent"]).version
            for who in "ab":
                said = "x" if n % 2 or (who == "b" and n < 4) else "y"
                one.answer(who, item, said, task="intent", guideline_version=version)
        with one.client() as client:
            page = client.get("/tasks/intent/agreement").text
            told = client.get("/api/v1/tasks/intent/agreement").json()["by_version"]
    assert [row["percent"]["value"] for row in told] == [0.5, 1]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main(["label", "status", "--json"])
    printed = capsys.readouterr().out
    assert json.loads(printed.splitlines()[-1])["agreement"]["by_version"] == told
    for row in told:
        value = f"{row['measure']['estimate']['value']:.3f}"
        for text in (page, printed):
            assert row["version"][:8] in text
            assert value in text
    assert f"{told[1]['change']['value']:+.3f}" in page


def test_the_commands_say_in_words_what_there_is_not(tmp_path, monkeypatch, capsys):
    """No empty tables before the first label; then the same time left on each skin."""
    asked = [example(n, f"question {n}\n" + "and more " * 20) for n in range(30)]
    with contextlib.closing(
        Studio(tmp_path, '[label]\nchoices = ["x", "y"]', examples=asked)
    ) as one:
        monkeypatch.chdir(tmp_path)

        def told(*command: str) -> str:
            with pytest.raises(SystemExit, match="0"):
                main(["label", *command])
            return capsys.readouterr().out

        before = told("status")
        assert "1 answer per example" in before
        assert "nobody has labelled yet" in before
        assert "no example has two answers yet" in before
        assert "undefined" not in before
        assert "annotators" not in before
        assert "none found" in told("errors")
        assert "annotators" not in told("quote")
        for item in asked[:25]:
            one.answer("ann", item, "x", seconds=60.0)
        left = "5 min 0 s"
        with one.client() as client:
            page = client.get("/tasks/answer/overview").text
        assert f"<dt>Time left</dt><dd>{left}</dd>" in page
        assert f"{left} of people's time" in told("status")
        found = told("errors", "--limit", "1")
        assert "question" in found
        assert "/tasks/answer/review?example=" in found


def test_what_takes_long_is_kept_until_enough_has_changed(sqlite_store, monkeypatch):
    examples = fill(sqlite_store, 300)
    rows = [Annotation(e.id, "answer", "x", who, f"{who} {e.id}") for e in examples for who in "ab"]
    with sqlite_store.writing() as connection:
        add_annotations(connection, rows, actor="test")
    before = label_agreement(sqlite_store, TASK)
    say(sqlite_store, examples[0], "a", "y")
    assert label_agreement(sqlite_store, TASK) != before
    monkeypatch.setattr(status_module, "_QUICK_SECONDS", 0.0)
    kept = label_agreement(sqlite_store, TASK)
    say(sqlite_store, examples[1], "a", "y")
    assert label_agreement(sqlite_store, TASK) is kept
    for one in examples[2:10]:
        say(sqlite_store, one, "a", "y")
    assert label_agreement(sqlite_store, TASK) != kept
    assert label_agreement(sqlite_store, replace(TASK, overlap=3)) is not kept


# Quote


def work(store, task, rng, people, examples, answers_of):
    """Let people answer examples; each has a mean time, and each answer its own."""
    for one in examples:
        for who in rng.sample(sorted(people), task.overlap):
            seconds = people[who] * rng.lognormvariate(0, 0.5)
            say(store, one, who, answers_of(one, who), task=task, seconds=seconds)


def test_quote_adds_up(store):
    rng = random.Random(1)
    task = replace(TASK, overlap=2)
    examples = fill(store, 100)
    work(store, task, rng, dict.fromkeys("abcd", 10.0), examples[:40], lambda *_: "x")
    found = quote(store, task, 30.0)
    status = label_status(store, task)
    assert found.answers_left == status.answers_left == 120
    assert status_and_quote(store, task, 30.0) == (status, found)
    assert found.timed_answers == 80
    assert found.skip_share == 0
    assert {speed.annotator for speed in found.annotators} == set("abcd")
    with store.reading() as connection:
        seconds = [a.seconds for a in read_annotations(connection)]
    assert found.seconds_per_answer.value == pytest.approx(np.mean(seconds))
    expected = (120 + found.disputes_left) * np.mean(seconds) / 3600
    assert found.hours.value == pytest.approx(expected)
    assert found.hours.low < found.hours.value < found.hours.high
    assert found.cost.value == pytest.approx(30 * found.hours.value)
    assert quote(store, task).cost is None
    assert quote(store, task) == quote(store, task)


def test_skips_and_disputes_cost_time(sqlite_store):
    examples = fill(sqlite_store, 60)
    task = replace(TASK, overlap=2, lease_seconds=1000)
    for n, one in enumerate(examples[:40]):
        for who in "abc"[: 2 + (n % 2)]:
            if who == "c":
                say(sqlite_store, one, who, "", task=task, status="skipped", seconds=20.0)
            else:
                answer = "y" if who == "b" and n < 20 else "x"
                say(sqlite_store, one, who, answer, task=task, seconds=10.0)
    found = quote(sqlite_store, task)
    assert found.seconds_per_answer.value == pytest.approx((80 * 10 + 20 * 20) / 80)
    assert found.skip_share == pytest.approx(20 / 100)
    assert found.disputes_left == pytest.approx(20 + 20 * 20.5 / 41)
    assert any("too few disputes" in note for note in found.notes)
    for one in open_disputes(sqlite_store, task):
        adjudicate(sqlite_store, task, {one: "x"}, person="eve")
    # Their time is that between decisions; these came within a moment.
    again = quote(sqlite_store, task)
    assert again.disputes_left == pytest.approx(20 * 20.5 / 41)
    assert any("too few disputes" in note for note in again.notes)


def test_pauses_count_for_little(sqlite_store):
    examples = fill(sqlite_store, 50)
    for n, one in enumerate(examples[:30]):
        say(sqlite_store, one, "a", seconds=3600.0 if n == 7 else 10.0)
    found = quote(sqlite_store, TASK)
    assert found.seconds_per_answer.value == pytest.approx((29 * 10 + 100) / 30)


def test_too_little_is_told(sqlite_store):
    examples = fill(sqlite_store, 50)
    assert quote(sqlite_store, TASK).hours is None
    for one in examples[: FEWEST_ANSWERS - 1]:
        say(sqlite_store, one, "a", seconds=5.0)
    few = quote(sqlite_store, TASK, 10)
    assert (few.hours, few.cost, few.seconds_per_answer) == (None, None, None)
    assert few.answers_left == 100 - (FEWEST_ANSWERS - 1)
    assert f"{FEWEST_ANSWERS - 1} answers were timed" in few.notes[0]
    # Untimed answers, as imports have them, say nothing of time.
    say(sqlite_store, examples[-1], "b")
    assert quote(sqlite_store, TASK).hours is None
    say(sqlite_store, examples[-2], "a", seconds=5.0)
    enough = quote(sqlite_store, TASK)
    assert enough.hours is not None
    assert any("only 1 person was timed" in note for note in enough.notes)


def test_one_answer_each_foretells_flags_alone(sqlite_store):
    """Nobody can disagree: no dispute is foretold before a flag, then at the share of flags."""
    examples = fill(sqlite_store, 100)
    task = replace(TASK, overlap=1)
    assert quote(sqlite_store, task).disputes_left == 0
    for n, one in enumerate(examples[:39]):
        say(sqlite_store, one, "ab"[n % 2], task=task, seconds=5.0)
    calm = quote(sqlite_store, task)
    assert (calm.disputes_left, calm.seconds_per_dispute) == (0, None)
    assert calm.hours.value == pytest.approx(61 * 5 / 3600)
    say(sqlite_store, examples[39], "a", "", task=task, status="flagged", seconds=5.0)
    assert quote(sqlite_store, task).disputes_left == pytest.approx(1 + 60 * 1 / 40.5)


@pytest.mark.parametrize("price", [-1, float("nan"), float("inf")])
def test_a_price_that_is_none_is_refused(sqlite_store, price):
    with pytest.raises(InputError):
        quote(sqlite_store, TASK, price)


def test_the_interval_holds_what_it_came_to(sqlite_store):
    """Forty tasks, each of eight people unlike one another: what the rest took is inside."""
    examples = fill(sqlite_store, 60)
    held = 0
    for seed in range(40):
        rng = random.Random(seed)
        task = replace(TASK, overlap=1, name=f"task{seed}")
        people = {f"p{n}": 10 * rng.lognormvariate(0, 0.3) for n in range(8)}
        rows = [
            Annotation(one.id, task.name, "x", who, f"{seed} {one.id}", seconds=seconds)
            for one in examples
            for who in [rng.choice(sorted(people))]
            for seconds in [people[who] * rng.lognormvariate(0, 0.5)]
        ]
        with sqlite_store.writing() as connection:
            add_annotations(connection, rows[:40], actor="test")
            settle_slots(connection, task, rows[:40])
        found = quote(sqlite_store, task)
        rest = sum(row.seconds for row in rows[40:]) / 3600
        held += found.hours.low <= rest <= found.hours.high
    assert held >= 34
