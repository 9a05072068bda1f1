"""Answers settled by rule and by people. Run: pytest tests/test_resolve.py"""

import json
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from burnish.errors import InputError
from burnish.hashing import canonical_json
from burnish.label.bulk import exclude_all
from burnish.label.queue import submit
from burnish.label.resolve import (
    adjudicate,
    open_disputes,
    read_dispute,
    resolve,
)
from burnish.label.rules import decide
from burnish.records.answers import checked_answer
from burnish.store.annotations import add_annotations
from burnish.store.answers import read_answered, read_resolutions
from burnish.store.drafts import Draft, add_drafts
from burnish.store.findings import read_exclusions
from burnish.store.log import verify_log
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message
from queues import NOON, answer, fill

CHOICES = ("red", "green", "blue")
WRITE = Task(rule="majority")
MANY = Task(kind="choose_many", choices=CHOICES, rule="majority")
SPANS = Task(kind="spans", choices=CHOICES, rule="majority")
RATE = Task(kind="rate", rule="majority")
RANK = Task(kind="rank", rule="majority")
ACCEPT = Task(kind="accept", rule="majority")


def spans(*given_spans: tuple[int, int, str]) -> str:
    of = Example(Conversation((Message("user", "x" * 20),)), "s")
    listed = [{"start": start, "end": end, "label": label} for start, end, label in given_spans]
    return checked_answer(json.dumps(listed), SPANS, of)


# Rules


@pytest.mark.parametrize(
    ("task", "answers", "settled"),
    [
        (Task(), ["a", "a ", "a\n"], "a"),
        (Task(), ["a", "a", "b"], None),
        (Task(), [], None),
        (WRITE, ["a", "b", "a"], "a"),
        (WRITE, ["a", "b"], None),
        (WRITE, ["a", "a", "b", "b"], None),
        (WRITE, ["a", "b", "c"], None),
        (WRITE, [], None),
        (MANY, ['["red"]', '["red","blue"]', '["green"]'], '["red"]'),
        (MANY, ['["red","blue"]', '["green","blue"]', '["red","green"]'], '["red","green","blue"]'),
        (MANY, ['["red"]', '["red","blue"]'], None),
        # More than half want neither, and nobody wants nothing.
        (MANY, ['["red"]', '["green"]', '["blue"]'], None),
        (MANY, ["[]", "[]", '["blue"]'], "[]"),
        # A choice taken out of burnish.toml since.
        (MANY, ['["old","red"]', '["old","red","blue"]', '["red"]'], '["red","old"]'),
        (
            SPANS,
            [spans((9, 12, "red"), (0, 3, "red")), spans((0, 3, "red")), spans((9, 12, "red"))],
            spans((0, 3, "red"), (9, 12, "red")),
        ),
        (SPANS, [spans((0, 3, "red")), spans((0, 3, "blue")), spans((0, 4, "red"))], None),
        (RATE, ["2", "3", "5"], "3"),
        (RATE, ["1", "5"], None),
        (RATE, ["3", "3", "4", "4"], None),
        (RATE, ["1", "4", "4", "5"], "4"),
        (RANK, ["[[0],[1],[2]]", "[[0],[2],[1]]", "[[1],[0],[2]]"], "[[0],[1],[2]]"),
        (RANK, ["[[0],[1,2]]", "[[0],[1,2]]", "[[2],[1],[0]]"], "[[0],[1,2]]"),
        # Condorcet's paradox.
        (RANK, ["[[0],[1],[2]]", "[[1],[2],[0]]", "[[2],[0],[1]]"], None),
        (RANK, ["[[0],[1]]", "[[1],[0]]"], None),
        # 0 as good as 1, 1 as good as 2, and yet 0 above 2.
        (RANK, ["[[0,1,2]]", "[[0,1],[2]]", "[[0],[1,2]]"], None),
        # A draft came after the first had ranked.
        (RANK, ["[[1],[0]]", "[[1],[2],[0]]", "[[1],[2],[0]]"], "[[1],[2],[0]]"),
        (
            ACCEPT,
            [
                '{"reason":"rude","verdict":"reject"}',
                '{"verdict":"accept"}',
                '{"reason":"wrong","verdict":"reject"}',
            ],
            '{"reason":"rude; wrong","verdict":"reject"}',
        ),
        (ACCEPT, ['{"verdict":"accept"}', '{"verdict":"accept"}'], '{"verdict":"accept"}'),
        (ACCEPT, ['{"reason":"a","verdict":"reject"}', '{"verdict":"accept"}'], None),
    ],
)
def test_rules(task, answers, settled):
    assert decide(answers, task) == settled


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=9))
def test_a_majority_of_ratings_stands_on_both_sides_of_the_grade(ratings):
    """Balinski and Laraki: more than half give it at least the grade, more than half at most."""
    grade = decide([str(r) for r in ratings], RATE)
    fitting = [
        g
        for g in range(1, 6)
        if 2 * sum(r >= g for r in ratings) > len(ratings)
        and 2 * sum(r <= g for r in ratings) > len(ratings)
    ]
    assert fitting == ([int(grade)] if grade else [])


def weak_order(items: list[int], random) -> list[list[int]]:
    places: list[list[int]] = []
    for item in random.sample(items, len(items)):
        if places and random.random() < 0.3:
            places[-1].append(item)
        else:
            places.append([item])
    return [sorted(place) for place in places]


def places_of(order: list[list[int]]) -> dict[int, int]:
    return {item: place for place, tied in enumerate(order) for item in tied}


def distance(one: list[list[int]], other: list[list[int]]) -> int:
    """Kemeny's: 2 for each pair the other way round, 1 for each that one of them ties."""
    a, b = places_of(one), places_of(other)
    sign = {True: 1, False: -1}
    total = 0
    for x, y in combinations(sorted(a), 2):
        left = 0 if a[x] == a[y] else sign[a[x] < a[y]]
        right = 0 if b[x] == b[y] else sign[b[x] < b[y]]
        total += abs(left - right)
    return total


def every_weak_order(items: list[int]) -> list[list[list[int]]]:
    orders = set()
    for order in permutations(items):
        for cuts in range(2 ** (len(items) - 1)):
            places = [[order[0]]]
            for n, item in enumerate(order[1:]):
                if cuts >> n & 1:
                    places.append([item])
                else:
                    places[-1].append(item)
            orders.add(canonical_json([sorted(place) for place in places]))
    return [json.loads(order) for order in orders]


EVERY_ORDER = every_weak_order([0, 1, 2, 3])


@settings(deadline=None)
@given(st.integers(1, 7), st.randoms(use_true_random=False))
def test_a_ranking_by_majority_is_kemenys_and_no_other(people, random):
    rankings = [weak_order([0, 1, 2, 3], random) for _ in range(people)]
    settled = decide([canonical_json(r) for r in rankings], RANK)
    if settled is None:
        return
    costs = {canonical_json(o): sum(distance(o, r) for r in rankings) for o in EVERY_ORDER}
    assert [o for o, cost in costs.items() if cost == min(costs.values())] == [settled]


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from(CHOICES)), min_size=1, max_size=7))
def test_each_choice_of_a_majority_is_kept_and_no_other(chosen):
    settled = decide([canonical_json([c for c in CHOICES if c in one]) for one in chosen], MANY)
    counts = {choice: sum(choice in one for one in chosen) for choice in CHOICES}
    kept = [c for c, count in counts.items() if 2 * count > len(chosen)]
    whole = max(chosen.count(one) for one in chosen)
    if settled is None:
        assert not kept or any(2 * count == len(chosen) for count in counts.values())
    elif 2 * whole <= len(chosen):
        assert json.loads(settled) == kept != []
    else:
        assert chosen.count(set(json.loads(settled))) == whole


@settings(deadline=None)
@given(
    st.sampled_from([WRITE, MANY, RATE, RANK, ACCEPT]),
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_who_answered_first_does_not_matter_and_unanimity_is_a_majority(task, picks, random):
    answers = {
        "write": ["a", "b", "c", "d"],
        "choose_many": ["[]", '["red"]', '["red","blue"]', '["green"]'],
        "rate": ["1", "2", "4", "5"],
        "rank": ["[[0],[1],[2]]", "[[2],[1],[0]]", "[[0,1,2]]", "[[1],[0,2]]"],
        "accept": ['{"verdict":"accept"}'] * 2 + ['{"reason":"a","verdict":"reject"}'] * 2,
    }[task.kind]
    given_answers = [answers[pick] for pick in picks]
    shuffled = random.sample(given_answers, len(given_answers))
    assert decide(given_answers, task) == decide(shuffled, task)
    unanimous = decide(given_answers, Task(kind=task.kind, choices=task.choices))
    assert unanimous is None or unanimous == decide(given_answers, task)


# In the store


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
        answers = {a.example.id: a.conversation.answer for a in read_answered(connection, task)}
        verify_log(connection)
    assert in_force[one.id].resolved_by == "rule:majority"
    assert (in_force[two.id].answer, in_force[two.id].resolved_by) == ("y", "eve")
    assert len(in_force[two.id].annotation_ids) == 3
    assert [answers[e.id].content for e in (one, two, three, alone)] == ["x", "y", "y", "x"]
    dispute = read_dispute(store, task, three.id)
    assert [a.answer for a in dispute.annotations] == ["x", "y", "z"]
    assert read_dispute(store, task, "0" * 32) is None


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


def test_a_flag_keeps_rules_away(store):
    [one] = fill(store, 1)
    task = Task(overlap=2)
    for person, status in (("a", "submitted"), ("b", "submitted"), ("c", "flagged")):
        submit(store, task, answer(one, person, "x", status=status), now=NOON)
    done = resolve(store, task)
    assert (done.added, done.open) == (0, 1)


def test_a_decision_that_comes_while_a_rule_is_at_work_stands(store):
    """The rule reads which examples there are, then what was said; a person decides; it writes."""
    [one] = fill(store, 1)
    task = Task(overlap=2)
    for person in "ab":
        submit(store, task, answer(one, person, "x"), now=NOON)
    reads = []

    @event.listens_for(store.engine, "checkin")
    def decide_after_two_reads(*_):
        reads.append(None)
        if len(reads) == 2:
            adjudicate(store, task, {one.id: "y"}, person="eve")

    assert resolve(store, task).added == 0
    with store.reading() as connection:
        [answered] = read_answered(connection, task)
        [decided] = read_resolutions(connection, task="answer")
    assert answered.conversation.answer.content == "y"
    assert decided.resolved_by == "eve"


def test_decisions_are_kept_in_one_form(store):
    [one] = fill(store, 1)
    adjudicate(store, MANY, {one.id: '[ "blue", "red" ]'}, person=" eve ")
    with store.reading() as connection:
        [kept] = read_resolutions(connection, task="answer")
    assert (kept.answer, kept.resolved_by) == ('["red","blue"]', "eve")


def test_a_reviewer_may_rank_drafts(store):
    [one] = fill(store, 1)
    with store.writing() as connection:
        add_drafts(connection, [Draft.of(one.id, "answer", text, "m") for text in "ab"])
    adjudicate(store, RANK, {one.id: "[[1],[0]]"}, person="eve")
    with store.reading() as connection:
        [answered] = read_answered(connection, RANK)
    assert answered.conversation.answer.content == "b"


def test_adjudication_refuses_what_it_cannot_keep(store):
    [one] = fill(store, 1)
    task = Task(kind="choose", choices=("x", "y"))
    for decisions, where in (
        ({one.id: "z"}, one.id),
        ({one.id: "x", "0" * 32: "x"}, "0" * 32),
        ({one.id: ""}, one.id),
    ):
        with pytest.raises(InputError, match=where):
            adjudicate(store, task, decisions, person="eve")
    with pytest.raises(InputError, match="no annotator's name"):
        adjudicate(store, task, {one.id: "x"}, person="rule:majority")
    with store.reading() as connection:
        assert list(read_resolutions(connection, task="answer")) == []


def test_an_exclusion_needs_a_reason_and_an_example(store):
    [one] = fill(store, 1)
    for example_id, reason in ((one.id, " "), ("0" * 32, "why")):
        with pytest.raises(InputError):
            exclude_all(store, [example_id], reason, actor="eve")
    exclude_all(store, [one.id], " broken ", actor="eve")
    with store.reading() as connection:
        assert read_exclusions(connection) == {one.id: "broken"}


def test_every_page_is_settled(store):
    """More examples than are read at a time."""
    examples = fill(store, 2500)
    task = Task(overlap=2)
    batch = [
        Annotation(e.id, "answer", "x" if person == "a" or n % 2 else "y", person, f"{person}{n}")
        for n, e in enumerate(examples)
        for person in "ab"
    ]
    with store.writing() as connection:
        add_annotations(connection, batch, actor="import")
    assert resolve(store, task).added == 1250
    assert resolve(store, task).added == 0
