"""Reliability of annotators, and the answers that are probably wrong.

Run: pytest tests/test_label_errors.py
"""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from burnish.label.label_errors import LabelError, label_errors
from burnish.label.order import set_gold
from burnish.label.reliability import Ratings, dawid_skene
from burnish.label.resolve import adjudicate, resolve
from burnish.store import open_store
from burnish.store.annotations import add_annotations
from burnish.store.examples import add_examples
from burnish.store.slots import settle_slots
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message

CLINC150 = Path(__file__).parents[1].parent / "shared" / "data" / "clinc150_full.json"

# Dawid and Skene 1979, table 1: 45 patients' fitness for anaesthesia, 1 to 4, by five observers;
# the first of them saw each patient three times.
PATIENTS = """
111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3
222 2 2 2 3|232 2 2 2 3|444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1
111 1 1 1 1|111 1 1 1 1|222 2 2 2 1|222 1 3 2 2|222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2
111 1 1 1 1|111 1 1 1 1|232 2 2 2 2|111 1 1 1 1|111 1 1 1 1|112 1 1 2 1|111 1 1 1 1|333 3 2 3 3
111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3|221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1
111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2
"""


def test_dawid_skene_as_published():
    patients = PATIENTS.strip().replace("\n", "|").split("|")
    said = [
        (n, observer, int(digit) - 1)
        for n, patient in enumerate(patients)
        for observer, digits in enumerate(patient.split())
        for digit in digits
    ]
    example, annotator, value = np.array(said).T
    ratings = Ratings(example, annotator, value, np.full(45, -1), 5, 4)
    found = dawid_skene(ratings, added=1e-9)
    assert found.prior == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.006)
    # The first observer's error rates, by the right value.
    first = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    assert np.abs(found.errors[0].T - first).max() < 0.006


@pytest.fixture
def sqlite_store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/burnish.db")
    yield opened
    opened.close()


def label(store, task: Task, answers: list[dict[str, str]], prompts=None) -> list[Example]:
    """Examples with everybody's answers, as if imported."""
    texts = prompts or [f"question {n}" for n in range(len(answers))]
    examples = [Example(Conversation((Message("user", text),)), source="test") for text in texts]
    rows = [
        Annotation(example.id, task.name, text, who, f"{who} {example.id}")
        for example, said in zip(examples, answers, strict=True)
        for who, text in said.items()
    ]
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
        add_annotations(connection, rows, actor="test")
        settle_slots(connection, task, rows)
    return examples


def precision(found: list[LabelError], wrong: set[str]) -> float:
    return sum(error.example_id in wrong for error in found) / len(found)


def planted(intents: list[str], rates: dict[str, float], seed: int) -> list[dict[str, str]]:
    """Answers with slips: half of them to the one intent that is easiest to confuse."""
    rng = random.Random(seed)
    names = sorted(set(intents))
    near = dict(zip(names, rng.sample(names, len(names)), strict=True))

    def said(intent: str, rate: float) -> str:
        if rng.random() >= rate:
            return intent
        return near[intent] if rng.random() < 0.5 else rng.choice(names)

    return [{who: said(intent, rate) for who, rate in rates.items()} for intent in intents]


def by_minority(answers: list[dict[str, str]], in_force: list[str], k: int) -> set[int]:
    """The baseline: the k examples in which the largest share disagrees; ties as they come."""
    against = [
        -sum(a != right for a in said.values()) / len(said)
        for said, right in zip(answers, in_force, strict=True)
    ]
    return set(np.argsort(against, kind="stable")[:k].tolist())


def word_model(texts: list[str], intents: list[str], names: list[str]) -> np.ndarray:
    """Naive Bayes on words, each half predicted by the other: (texts, names)."""
    words = {w: n for n, w in enumerate(sorted({w for t in texts for w in t.lower().split()}))}
    bags = np.zeros((len(texts), len(words)))
    for row, text in zip(bags, texts, strict=True):
        row[[words[w] for w in text.lower().split()]] = 1
    one_hot = np.array([[intent == name for name in names] for intent in intents], float)
    fold = np.random.default_rng(0).permutation(len(texts)) % 2
    scores = np.zeros((len(texts), len(names)))
    for half in (0, 1):
        seen = one_hot[fold != half].T @ bags[fold != half] + 0.1
        scores[fold == half] = bags[fold == half] @ np.log(seen / seen.sum(1, keepdims=True)).T
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


@pytest.mark.data
@pytest.mark.skipif(not CLINC150.exists(), reason="CLINC150 is not here")
def test_planted_errors_of_clinc150_are_found(sqlite_store):
    """Three annotators err on 5, 15 and 35 %; what the majority says is in force."""
    rows = [row for n, row in enumerate(json.loads(CLINC150.read_text())["train"]) if n % 3 == 0]
    texts, intents = [text for text, _ in rows], [intent for _, intent in rows]
    names = sorted(set(intents))
    task = Task(kind="choose", choices=tuple(names), overlap=3, rule="majority")
    answers = planted(intents, {"ann": 0.05, "bob": 0.15, "cat": 0.35}, seed=1)
    examples = label(sqlite_store, task, answers, [f"{n} {t}" for n, t in enumerate(texts)])
    resolve(sqlite_store, task)
    in_force = [Counter(said.values()).most_common(1)[0] for said in answers]
    decided = [answer if count > 1 else None for answer, count in in_force]
    wrong = {n for n, d in enumerate(decided) if d is not None and d != intents[n]}
    of_id = {example.id: n for n, example in enumerate(examples)}
    k = len(wrong)

    # What nobody agreed on waits for a reviewer, and is no answer in force.
    settled = [n for n, d in enumerate(decided) if d is not None]
    baseline = by_minority([answers[n] for n in settled], [decided[n] for n in settled], k)
    majority = len({settled[n] for n in baseline} & wrong) / k
    found = label_errors(sqlite_store, task, limit=k)
    alone = precision(found, {examples[n].id for n in wrong})
    guesses = word_model(texts, [d or "" for d in decided], names)
    model = {
        example.id: dict(zip(names, row, strict=True))
        for example, row in zip(examples, guesses.tolist(), strict=True)
    }
    helped = label_errors(sqlite_store, task, probabilities=model, limit=k)
    with_model = precision(helped, {examples[n].id for n in wrong})
    print(f"{k} errors: majority {majority:.3f}, alone {alone:.3f}, with a model {with_model:.3f}")
    assert alone > 2 * majority
    assert with_model > alone
    right = [e for e in helped if e.suggestion == intents[of_id[e.example_id]]]
    assert len(right) > 0.9 * with_model * k
    assert [e.score for e in found] == sorted((e.score for e in found), reverse=True)


def test_a_reliable_annotator_outweighs_two_unreliable(sqlite_store):
    rng = random.Random(2)
    task = Task(kind="choose", choices=("x", "y", "z"), overlap=5, rule="majority")
    truth = [rng.choice("xyz") for _ in range(1500)]
    rates = {"ann": 0.02, "bob": 0.02, "cat": 0.5, "dan": 0.5, "eve": 0.5}
    answers = [
        {who: t if rng.random() > rate else rng.choice("xyz") for who, rate in rates.items()}
        for t in truth
    ]
    examples = label(sqlite_store, task, answers)
    resolve(sqlite_store, task)
    wrong = {
        e.id
        for e, said, t in zip(examples, answers, truth, strict=True)
        if max(Counter(said.values()).values()) > 2
        and Counter(said.values()).most_common(1)[0][0] != t
    }
    assert len(wrong) > 5
    assert precision(label_errors(sqlite_store, task, limit=len(wrong)), wrong) > 0.8


def test_known_answers_tell_two_annotators_apart(sqlite_store):
    """Of two who disagree nobody can tell who is right, unless some right answers are known."""
    rng = random.Random(3)
    task = Task(kind="choose", choices=("yes", "no"), overlap=2)
    verdict = {True: "yes", False: "no"}
    answers = []
    truth = [rng.random() < 0.5 for _ in range(300)]
    for t in truth:
        slips = {"ann": rng.random() < 0.02, "bob": rng.random() < 0.4}
        answers.append({who: verdict[t != slip] for who, slip in slips.items()})
    examples = label(sqlite_store, task, answers)
    bobs = {n for n, said in enumerate(answers) if said["ann"] != said["bob"]}
    for n in bobs:
        adjudicate(sqlite_store, task, {examples[n].id: answers[n]["bob"]}, person="eve")
    before = {e.score for e in label_errors(sqlite_store, task, limit=len(bobs))}
    gold = {examples[n].id: verdict[truth[n]] for n in range(100)}
    set_gold(sqlite_store, task, gold, "eve")
    found = label_errors(sqlite_store, task, limit=50)
    assert all(error.suggestion is not None for error in found)
    assert min(e.score for e in found) > max(before)
    assert not {e.example_id for e in found} & gold.keys()


def test_single_answers_are_weighed_against_a_model(sqlite_store):
    task = Task(kind="rate", scale=(1, 3))
    examples = label(sqlite_store, task, [{"ann": str(1 + n % 3)} for n in range(30)])
    sure = {e.id: {str(1 + n % 3): 0.9} for n, e in enumerate(examples)}
    sure[examples[7].id] = {"1": 0.999, "2": 0.0005, "3": 0.0005}
    del sure[examples[8].id]
    first, second, *_ = label_errors(sqlite_store, task, probabilities=sure)
    assert (first.example_id, first.answer, first.suggestion) == (examples[7].id, "2", "1")
    assert first.score > 0.5 > second.score
    assert second.example_id == examples[8].id


def test_other_kinds_are_ranked_by_distance(sqlite_store):
    """A resolved text far from what all wrote comes first, and what they wrote is suggested."""
    rng = random.Random(4)
    task = Task(overlap=3)
    texts = ["".join(rng.choices("abcdefgh ", k=40)) for _ in range(20)]
    answers = [{"ann": t, "bob": t + "!", "cat": t + "?!"} for t in texts]
    # dan's answers are never like anybody's, so that his saying so counts for little.
    for said in answers:
        said["dan"] = "".join(rng.choices("stuvwxyz", k=40))
    examples = label(sqlite_store, task, answers)
    right = {e.id: t for e, t in zip(examples, texts, strict=True)}
    wrong = right | {examples[3].id: answers[3]["dan"], examples[9].id: texts[10]}
    adjudicate(sqlite_store, task, wrong, person="eve")
    found = label_errors(sqlite_store, task)
    assert {e.example_id for e in found[:2]} == {examples[3].id, examples[9].id}
    assert found[1].score > 2 * found[2].score
    assert {e.suggestion for e in found[:2]} <= {texts[3] + "!", texts[9] + "!", texts[3], texts[9]}
    assert len(label_errors(sqlite_store, task, limit=5)) == 5


def test_what_has_no_answer_in_force_is_no_label_error(store):
    task = Task(kind="choose", choices=("x", "y"), overlap=2)
    assert label_errors(store, task) == []
    answers = [{"ann": "x", "bob": "y"}, {"ann": "x", "bob": "x"}, {"ann": "x"}, {"ann": "y"}]
    examples = label(store, task, answers)
    set_gold(store, task, {examples[3].id: "x"}, "eve")
    found = {error.example_id for error in label_errors(store, task)}
    assert found == {examples[1].id, examples[2].id}
