"""From a snapshot to batches: rows on disk, forests, prefixes that meet, mixtures.

Run: pytest tests/test_plan.py
"""

from __future__ import annotations

import json
import time
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from burnish.chat import ChatTemplate, Rendered, choose_template, render
from burnish.errors import ConfigError, InputError
from burnish.nn.batches import Batches
from burnish.nn.epochs import SourceRows, choose_rows
from burnish.nn.forest import MIN_SHARED_TOKENS, plant
from burnish.nn.grouping import cut_into_families, shared_blocks, sort_by_prefix
from burnish.nn.parts import cut_into_parts
from burnish.nn.plan import plan_examples
from burnish.nn.rows import Rows, RowsWriter, TokenRow, open_or_write_rows
from burnish.records import read_examples
from burnish.records.mixture import read_mixture
from burnish.records.stream import scan_examples
from chat_templates import TEMPLATES_IN_USE, chat_tokenizer
from tiny import tiny_base


@st.composite
def examples_with_shared_prefixes(draw) -> list[Rendered]:
    """Examples grown from each other's prefixes, so that every kind of tree comes up."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    grown: list[list[int]] = [[]]
    for _ in range(draw(st.integers(1, 12))):
        stem = grown[rng.integers(len(grown))]
        kept = stem[: rng.integers(len(stem) + 1)] if rng.random() < 0.5 else stem
        grown.append([*kept, *rng.integers(4, size=rng.integers(1, 40)).tolist()])
    return [
        Rendered(ids, [0.0, *rng.choice([0.0, 1.0, 0.25], size=len(ids) - 1).tolist()], [])
        for ids in grown[1:]
    ]


def terms_of_examples(examples) -> Counter:
    """What is to be learnt: (the tokens before, the token, weight), summed over the examples."""
    terms: Counter = Counter()
    for row in examples:
        ids = [int(i) for i in row.ids]
        for n, weight in enumerate(row.weights):
            if weight and n:
                terms[tuple(ids[:n]), ids[n]] += float(weight)
    return terms


def terms_of_forest(forest) -> Counter:
    """The same, read from the forest the way the model reads it."""
    before = {}
    for index, segment in enumerate(forest.segments):
        path = [i for n in forest.path(index)[:-1] for i in segment_ids(forest, n)]
        own = segment_ids(forest, index)
        for n in range(len(own)):
            before[segment.start + n] = (*path, *own[: n + 1])
    terms: Counter = Counter()
    triples = zip(forest.sources, forest.targets, forest.weights, strict=True)
    for source, target, weight in triples:
        terms[before[int(source)], int(target)] += float(weight)
    return terms


def segment_ids(forest, index: int) -> list[int]:
    segment = forest.segments[index]
    return forest.ids[segment.start : segment.end].tolist()


@settings(max_examples=60, deadline=None)
@given(examples_with_shared_prefixes(), st.booleans())
def test_a_forest_asks_for_what_its_examples_ask_for(examples, share_prefixes):
    forest = plant(examples, share_prefixes=share_prefixes)
    assert forest.examples == len(examples) == len(forest.starts)
    assert forest.tokens == sum(len(row.ids) for row in examples)
    for row, leaf in zip(examples, forest.leaves, strict=True):
        path = forest.path(leaf)
        assert [i for n in path for i in segment_ids(forest, n)] == row.ids
        positions = [
            int(p) for n in path for p in forest.positions[slice(*bounds(forest.segments[n]))]
        ]
        assert positions == list(range(len(row.ids)))
    for segment in forest.segments:
        assert segment.parent is None or segment.end - segment.start > 0
        assert segment.parent is None or segment.depth >= MIN_SHARED_TOKENS
    assert terms_of_forest(forest) == terms_of_examples(examples)


def bounds(segment) -> tuple[int, int]:
    return segment.start, segment.end


def test_a_tree_as_deep_as_a_chain_is_planted():
    """A dialogue of 1,100 turns, each turn an example: recursion would overflow."""
    ids, weights = np.arange(1100 * 16, dtype=np.int32), np.zeros(1100 * 16, np.float32)
    lengths = range(16, len(ids) + 1, 16)
    forest = plant([TokenRow(ids[:n], weights[:n], 0) for n in lengths])
    assert forest.ids.tolist() == ids.tolist()
    assert len(forest.path(forest.leaves[-1])) == 1100


@settings(max_examples=60, deadline=None)
@given(examples_with_shared_prefixes(), st.integers(1, 120), st.booleans())
def test_parts_stay_within_the_budget_and_lose_nothing(examples, budget, share_prefixes):
    parts = cut_into_parts(examples, budget, share_prefixes=share_prefixes)
    assert sorted(id(row) for part in parts for row in part) == sorted(map(id, examples))
    for part in parts:
        computed = len(plant(part, share_prefixes=share_prefixes).ids)
        assert computed <= budget or len(part) == 1


def test_parts_are_few_and_balanced():
    lengths = [900, 100, 500, 500, 800, 200, 300, 700]
    examples = [Rendered([n] * length, [0.0] * length, []) for n, length in enumerate(lengths)]
    parts = cut_into_parts(examples, 1100, share_prefixes=True)
    assert len(parts) == 4
    assert all(900 <= sum(len(row.ids) for row in part) <= 1100 for part in parts)


def snapshot_of(*, families: int, members: int, prefix: int, answer: int, seed: int = 0) -> Rows:
    """Synthetic rows, in random order: `families` prefixes, each with `members` answers."""
    rng = np.random.default_rng(seed)
    prefixes = rng.integers(1000, size=(families, prefix))
    answers = rng.integers(1000, size=(families * members, answer))
    ids = np.concatenate([np.repeat(prefixes, members, axis=0), answers], axis=1)
    ids = rng.permutation(ids)
    weights = np.zeros(ids.shape, np.float32)
    weights[:, prefix:] = 1
    offsets = np.arange(len(ids) + 1) * ids.shape[1]
    return Rows(ids.astype(np.int32).ravel(), weights.ravel(), offsets)


def batches(examples, **changes) -> Batches:
    values = {
        "batch_examples": 8,
        "batch_tokens": 100_000,
        "order": "shuffled",
        "seed": 0,
        "share_prefixes": True,
    }
    return Batches(examples, **values | changes)


def epoch(plan: Batches, number: int) -> list[list[int]]:
    """Starts of the examples of each step."""
    steps = range(number * plan.steps_per_epoch, (number + 1) * plan.steps_per_epoch)
    return [[row.start for row in plan.rows(step)] for step in steps]


@settings(max_examples=40, deadline=None)
@given(examples_with_shared_prefixes())
def test_the_prefix_order_knows_what_any_two_examples_share(examples):
    rows = Rows.of(examples)
    prefixes = sort_by_prefix(rows)
    assert sorted(prefixes.order.tolist()) == list(range(len(examples)))
    pairs = [(a, b) for b in range(len(examples)) for a in range(b)]
    first, last = (np.array(x, np.int64) for x in (zip(*pairs, strict=True) if pairs else ((), ())))
    found = shared_blocks(prefixes, first, last).tolist()
    for (a, b), blocks in zip(pairs, found, strict=True):
        left, right = (examples[prefixes.order[slot]].ids for slot in (a, b))
        common = next(
            (n for n, (x, y) in enumerate(zip(left, right, strict=False)) if x != y),
            min(len(left), len(right)),
        )
        assert blocks == common // MIN_SHARED_TOKENS


@pytest.mark.parametrize("changes", [{}, {"bundle_examples": 1}, {"share_prefixes": False}])
def test_every_example_comes_once_an_epoch(changes):
    rows = snapshot_of(families=7, members=9, prefix=40, answer=5)
    plan = batches(rows, **changes)
    first, second = epoch(plan, 0), epoch(plan, 1)
    for steps in (first, second):
        assert sorted(s for step in steps for s in step) == rows.offsets[:-1].tolist()
        assert [len(step) for step in steps] == [8] * 7 + [7]
    assert first != second


def test_the_order_is_a_function_of_seed_and_step_alone():
    rows = snapshot_of(families=7, members=9, prefix=40, answer=5)
    straight = batches(rows)
    whole = [epoch(straight, n) for n in range(4)]
    assert epoch(batches(rows), 3) == whole[3]  # resumed there
    assert epoch(straight, 0) == whole[0]  # and back
    assert epoch(straight.with_budget(7), 2) == whole[2]
    assert epoch(batches(rows, seed=1), 0) != whole[0]
    unshared = batches(rows, share_prefixes=False)
    assert epoch(replace(straight, share_prefixes=False), 1) == epoch(unshared, 1)


def test_a_step_is_never_one_familys_alone_by_design():
    """Bundles hold at most m of a family, and which ones is drawn anew each epoch."""
    rows = snapshot_of(families=50, members=40, prefix=64, answer=6)
    plan = batches(rows, bundle_examples=4)
    family_of = {
        start: rows.ids[start : start + 64].tobytes() for start in rows.offsets[:-1].tolist()
    }
    alone = 0
    for steps in (epoch(plan, 0), epoch(plan, 1)):
        for step in steps:
            counts = Counter(family_of[start] for start in step)
            assert all(count % 4 == 0 for count in counts.values())
            alone += len(counts) == 1
    # Two bundles drawn at random are of one family in 1 of 50 steps, as chance has it.
    assert alone / 500 < 0.06
    together = [
        {frozenset(step[n : n + 4]) for step in epoch(plan, e) for n in (0, 4)} for e in (0, 1)
    ]
    assert len(together[0] & together[1]) < 5


def test_small_families_stay_whole_and_strangers_are_shuffled_plainly():
    related = snapshot_of(families=30, members=3, prefix=48, answer=4)
    families = cut_into_families(sort_by_prefix(related), 4)
    assert sorted(np.bincount(families)) == [3] * 30
    strangers = snapshot_of(families=90, members=1, prefix=48, answer=4)
    assert set(cut_into_families(sort_by_prefix(strangers), 4)) == {0}


@pytest.mark.parametrize("order", ["shuffled", "as_given"])
def test_estimates_are_those_of_the_planted_epoch(order):
    rows = snapshot_of(families=20, members=11, prefix=80, answer=10)
    for budget in (100_000, 400):
        plan = batches(rows, order=order, batch_tokens=budget)
        planted = [plan(step) for step in range(plan.steps_per_epoch)]
        forests = [forest for batch in planted for forest in batch.forests]
        computed = sum(len(forest.ids) for forest in forests)
        assert len(plan.worst().ids) == max(len(forest.ids) for forest in forests)
        if budget > 1000:
            true = sum(forest.tokens for forest in forests) / computed
            assert plan.sharing_factor == pytest.approx(true, rel=0.02)


def test_grouping_brings_prefixes_together():
    rows = snapshot_of(families=20, members=10, prefix=160, answer=10)
    assert batches(rows, bundle_examples=1).sharing_factor < 1.3
    assert batches(rows).sharing_factor > 2.5
    assert batches(rows, share_prefixes=False).sharing_factor == 1


def cost_of_ordering(count: int) -> tuple[float, int]:
    """Seconds of processor time and peak bytes to group `count` examples and draw an epoch."""
    rows = snapshot_of(families=count // 50, members=50, prefix=32, answer=8)
    tracemalloc.start()
    started = time.process_time()
    batches(rows).rows(0)
    seconds = time.process_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak


def test_ordering_a_snapshot_costs_linear_time_and_bounded_memory():
    small, large = cost_of_ordering(20_000), cost_of_ordering(160_000)
    assert large[0] < 3 * 8 * small[0]
    assert large[1] < 200 * 160_000 + 40e6


def test_starts_lead_from_a_forest_back_to_the_rows():
    rows = snapshot_of(families=3, members=5, prefix=40, answer=5)
    for forest in batches(rows, batch_tokens=120)(0).forests:
        for start, leaf in zip(forest.starts, forest.leaves, strict=True):
            ids = [i for n in forest.path(leaf) for i in segment_ids(forest, n)]
            assert ids == rows.ids[start : start + 45].tolist()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    base = tiny_base(tmp_path_factory.mktemp("base"))
    return choose_template(AutoTokenizer.from_pretrained(base))


def write_rows(path: Path, *answers: str, weight: float = 1.0) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is the balance ({n})?"},
                {"role": "assistant", "content": answer, "weight": weight},
            ]
        }
        for n, answer in enumerate(answers)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_on_disk_are_what_is_rendered(template, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", "100 dollars", "", "no money at all " * 9, weight=0.5)
    plan = plan_examples(read_mixture(data), template, 40, tmp_path, as_chat=False)
    conversations = [e.conversation for e in read_examples(data).examples]
    expected = [render(conversations[n], template) for n in (0, 2)]
    assert (plan.examples, plan.truncated, len(plan.rows)) == (2, 1, 2)
    assert [(r.source, r.number, r.reason) for r in plan.refused] == [(0, 2, "the answer is empty")]
    for row, want in zip(plan.rows, expected, strict=True):
        assert row.ids.tolist() == want.ids[:40]
        assert row.weights.tolist() == want.weights[:40]
        assert plan.rows.ids[row.start : row.start + len(row.ids)].tolist() == want.ids[:40]
    assert plan.tokens == sum(len(row.ids) for row in plan.rows)
    assert plan.supervised_tokens == sum(np.count_nonzero(row.weights) for row in plan.rows)
    assert plan.stops == {expected[0].ids[expected[0].stops[0]]: 1}  # the other is cut off
    assert not plan.all_raw


def test_an_example_rendered_in_several_ways_has_several_rows(tmp_path):
    """Qwen 3 drops earlier thoughts, so each turn is trained as it is served: a row each."""
    template = ChatTemplate(chat_tokenizer(tmp_path), "qwen 3", TEMPLATES_IN_USE["qwen 3"])
    turns = ["One?", "<think>\nhm\n</think>\n\n1", "Two?", "<think>\nhm, two\n</think>\n\n2"]
    roles = ["user", "assistant"] * 2
    messages = [{"role": r, "content": c} for r, c in zip(roles, turns, strict=True)]
    data = tmp_path / "d.jsonl"
    data.write_text(json.dumps({"messages": messages}) + "\n")
    plan = plan_examples(read_mixture(data), template, 200, tmp_path, as_chat=False)
    assert (plan.examples, len(plan.rows), plan.sources[0].rows.per_epoch) == (1, 2, 2)
    assert plan.stops.total() == 2


def test_data_that_changes_between_the_scan_and_the_rendering_is_noticed(template, tmp_path):
    mixture = read_mixture(write_rows(tmp_path / "d.jsonl", "a", "b"))
    write_rows(tmp_path / "d.jsonl", "a")
    with pytest.raises(InputError, match="changed while it was read: 2 examples, then 1"):
        plan_examples(mixture, template, 40, tmp_path, as_chat=False)


def test_rows_are_rendered_once_and_anew_when_anything_changed(template, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", "100 dollars", "none", "")

    def made(max_length=40) -> tuple[int, object]:
        plan = plan_examples(read_mixture(data), template, max_length, tmp_path, as_chat=False)
        facts = plan.examples, plan.refused, plan.supervised_tokens, plan.stops, plan.all_raw
        return (tmp_path / "rows" / "ids").stat().st_mtime_ns, facts

    first, again = made(), made()
    assert first == again
    assert made(max_length=39)[0] > first[0]
    write_rows(data, "100 dollars", "some", "")
    assert made()[0] > first[0]


def test_a_kill_half_way_leaves_nothing_that_is_taken_for_whole(tmp_path):
    def killed(writer: RowsWriter) -> dict:
        writer.add(np.arange(5, dtype=np.int32), np.ones(5, np.float32))
        raise KeyboardInterrupt

    def whole(writer: RowsWriter) -> dict:
        for n in (3, 4):
            writer.add(np.arange(n, dtype=np.int32), np.ones(n, np.float32))
        return {"made": "whole"}

    with pytest.raises(KeyboardInterrupt):
        open_or_write_rows(tmp_path / "rows", "key", killed)
    assert list(tmp_path.iterdir()) == []
    rows, facts = open_or_write_rows(tmp_path / "rows", "key", whole)
    assert [row.ids.tolist() for row in rows] == [[0, 1, 2], [0, 1, 2, 3]]
    assert facts == {"made": "whole"}
    rows.release()
    assert rows[1].ids.tolist() == [0, 1, 2, 3]
    with pytest.raises(KeyboardInterrupt):
        open_or_write_rows(tmp_path / "rows", "other", killed)
    again, _ = open_or_write_rows(tmp_path / "rows", "key", killed)  # the old ones still stand
    assert again.hash == rows.hash != Rows.of([*rows, *rows]).hash


def test_a_scan_names_the_data_as_reading_it_does(tmp_path):
    data = write_rows(tmp_path / "d.jsonl", "a", "b é \ud83d\ude00", "c")
    with data.open("a") as file:
        file.write("{broken\n")
    read, scanned = read_examples(data), scan_examples(data)
    assert (scanned.hash, scanned.id, scanned.rejects) == (read.hash, read.id, read.rejects)
    assert list(scanned) == list(scanned) == read.examples
    assert scanned.count == 3


def mixture_file(folder: Path, *tables: str) -> Path:
    path = folder / "mixture.toml"
    path.write_text("".join(f"[[source]]\n{table}\n" for table in tables))
    return path


def test_a_mixture_takes_of_each_source_its_share(template, tmp_path):
    (tmp_path / "sub").mkdir()
    write_rows(tmp_path / "a.jsonl", *(f"a{n}" for n in range(10)))
    write_rows(tmp_path / "b.jsonl", *(f"b{n}" for n in range(9)))
    write_rows(tmp_path / "c.jsonl", *(f"c{n}" for n in range(4)), "")
    path = mixture_file(
        tmp_path,
        'data = "a.jsonl"\nweight = 2.0',
        'data = "b.jsonl"\ncap = 4\nloss_weight = 0.25',
        f'data = "{tmp_path / "c.jsonl"}"\nweight = 0.5',
    )
    mixture = read_mixture(path)
    assert len(mixture.parents) == 3
    plan = plan_examples(mixture, template, 100, tmp_path / "sub", as_chat=False)
    assert [(s.name, s.examples, s.rows.per_epoch) for s in plan.sources] == [
        ("a.jsonl", 10, 20),
        ("b.jsonl", 9, 4),
        ("c.jsonl", 4, 2),
    ]
    assert [(r.source, r.number) for r in plan.refused] == [(2, 5)]
    assert set(plan.rows[12].weights.tolist()) == {0.0, 0.25}
    run = batches(plan.rows, batch_examples=4, sources=[s.rows for s in plan.sources])
    assert run.steps_per_epoch == 7  # 26 rows
    counts: Counter = Counter()
    for n in range(9):  # 9 epochs of 4 of 9 rows: each row 4 times
        starts = [start for step in epoch(run, n) for start in step]
        assert len(starts) == 26
        counts.update(starts)
    per_source = [
        {counts[start] for start in plan.rows.offsets[s.rows.first :][: s.rows.count].tolist()}
        for s in plan.sources
    ]
    assert per_source == [{18}, {4}, {4, 5}]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 50)), min_size=1, max_size=3),
    st.integers(0, 5),
)
def test_rows_take_turns_over_the_epochs(shares, seed):
    first, sources = 0, []
    for count, per_epoch in shares:
        sources.append(SourceRows(first, count, per_epoch))
        first += count
    counts: Counter = Counter()
    for n in range(6):
        rows, passes = choose_rows(sources, seed, n)
        assert len(set(zip(rows.tolist(), passes.tolist(), strict=True))) == len(rows)
        counts.update(rows.tolist())
        for source in sources:
            seen = [counts[row] for row in range(source.first, source.first + source.count)]
            assert sum(seen) == source.per_epoch * (n + 1)
            assert max(seen) - min(seen) <= 1


def test_a_mixture_that_cannot_be_read_says_all_at_once(tmp_path):
    write_rows(tmp_path / "a.jsonl", "a")
    path = mixture_file(tmp_path, 'data = "a.jsonl"\nwieght = 2', "cap = 0", 'data = "a.jsonl"')
    with pytest.raises(ConfigError) as error:
        read_mixture(path)
    for words in ("did you mean 'weight'", "[[source]] 2: data is missing"):
        assert words in str(error.value)
    path.write_text('[[sources]]\ndata = "a.jsonl"\n')
    with pytest.raises(ConfigError, match="did you mean 'source'"):
        read_mixture(path)
    with pytest.raises(InputError, match="no such file"):
        read_mixture(mixture_file(tmp_path, 'data = "missing.jsonl"'))


def test_a_share_is_part_of_what_a_mixture_is(tmp_path):
    data = write_rows(tmp_path / "a.jsonl", "a", "b")
    assert read_mixture(data).hash == read_examples(data).hash
    hashes = {
        read_mixture(mixture_file(tmp_path, f'data = "a.jsonl"\n{share}')).hash
        for share in ("", "weight = 2", "cap = 1", "loss_weight = 0.5")
    }
    assert len(hashes) == 4
