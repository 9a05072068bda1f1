"""The evaluation stage, end to end on a small real model: pytest tests/test_evaluate.py"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.chat import render_prompt
from burnish.errors import ConfigError, InputError, ProjectError
from burnish.evaluate.answerer import Answerer, model_answerer
from burnish.evaluate.comparison import Rules, compare, compare_slices
from burnish.evaluate.evaluate import EvaluateConfig, evaluate
from burnish.evaluate.items import LEAKED, UNSEEN
from burnish.evaluate.plots import _ticks
from burnish.hashing import file_hash
from burnish.nn.generate import Sampling, generate
from burnish.nn.models import load_model
from burnish.project import read_manifest
from burnish.records.fingerprint import prompt_fingerprint
from burnish.types import Conversation, Example, Message, Report
from tiny import tiny_base

BINARY = Rules(alpha=0.05, resamples=1000, seed=0, binary=True)
GRADED = replace(BINARY, binary=False)


def example(question: str, answer: str | None, **metadata: str) -> Example:
    turns = [Message("system", "Answer with one label."), Message("user", question)]
    if answer is not None:
        turns.append(Message("assistant", answer))
    return Example(Conversation(tuple(turns)), "held_out.jsonl", metadata)


def answering(identity: str, right: Callable[[int], bool | str]) -> Answerer:
    """Answers question `q<n>` with its label where `right(n)`, or with the text that it gives."""

    def answer(conversations: Sequence[Conversation]) -> list[str]:
        answers = []
        for conversation in conversations:
            n = int(conversation.messages[-1].content.split()[0].removeprefix("q"))
            verdict = right(n)
            answers.append(verdict if isinstance(verdict, str) else f"label{n % 3}" * verdict)
        return answers

    return Answerer(identity, f"checkpoint-{identity}", answer, {"decoding": "greedy"})


def always(_: int) -> bool:
    return True


def never(_: int) -> bool:
    return False


def unasked(_: int) -> bool:
    raise AssertionError("asked")


def items(n: int) -> list[Example]:
    return [
        example(f"q{i} what is it?", f"label{i % 3}", scope="even" if i % 2 == 0 else "odd")
        for i in range(n)
    ]


def run(folder: Path, examples: Sequence[Example], candidate: Answerer, base: Answerer) -> Report:
    return evaluate(
        EvaluateConfig(folder / "report", slice_by=("scope",)), examples, candidate, base
    )


# Comparisons


def test_mcnemar_counted_by_hand() -> None:
    # Ten items: the candidate alone has 8 right, the base alone 1, both 1.
    # p = 2 · (C(9,0) + C(9,1)) / 2^9 = 20/512; mid-p = (20 - 9)/512.
    base = [0.0] * 8 + [1.0, 1.0]
    candidate = [1.0] * 8 + [0.0, 1.0]
    result = compare("all", base, candidate, BINARY)
    assert (result.wins, result.ties, result.losses, result.n) == (8, 1, 1, 10)
    assert (result.p, result.mid_p) == (20 / 512, 11 / 512)
    assert result.verdict == "better"
    assert result.difference is not None
    assert result.difference.mean == pytest.approx(0.7)


scores = st.lists(
    st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0, None])] * 2), min_size=1, max_size=30
)


@given(scores)
def test_swapping_the_models_flips_every_sign(
    pairs: list[tuple[float | None, float | None]],
) -> None:
    base, candidate = zip(*pairs, strict=True)
    there = compare("all", base, candidate, GRADED)
    back = compare("all", candidate, base, GRADED)
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
    assert (there.p, there.n, there.unscored) == (back.p, back.n, back.unscored)
    assert (there.base, there.candidate) == (back.candidate, back.base)
    opposite = {"better": "worse", "worse": "better", "not shown": "not shown"}
    assert back.verdict == opposite[there.verdict]
    if there.difference is None or back.difference is None:
        assert there.difference == back.difference
        return
    d, e = there.difference, back.difference
    assert (d.mean, d.low, d.high) == pytest.approx((-e.mean, -e.high, -e.low), abs=1e-12)


@given(scores)
def test_unscored_items_count_nowhere(pairs: list[tuple[float | None, float | None]]) -> None:
    base, candidate = zip(*pairs, strict=True)
    scored = [(b, c) for b, c in pairs if b is not None and c is not None]
    if not scored:
        assert compare("all", base, candidate, GRADED).p is None
        return
    without = compare("all", *zip(*scored, strict=True), GRADED)
    assert replace(compare("all", base, candidate, GRADED), unscored=0) == without


@pytest.mark.parametrize("rules", [BINARY, GRADED])
def test_a_model_beside_itself_is_not_shown(rules: Rules) -> None:
    values = [float(n % 2) for n in range(50)]
    result = compare("all", values, values, rules)
    assert (result.p, result.verdict) == (1, "not shown")
    assert result.reason == "both models score the same on every item"
    assert result.difference is not None
    assert result.difference.low <= 0 <= result.difference.high


def test_too_few_items_can_show_nothing_and_say_so() -> None:
    result = compare("all", [0.0] * 5, [1.0] * 5, BINARY)
    assert result.verdict == "not shown"
    assert "fewer than 6 cannot give p < 0.05" in result.reason
    assert result.minimum_detectable_effect is None
    # One win in a hundred: the formula alone would promise 2.8 points, the test needs 6 items.
    result = compare("all", [0.0] * 100, [1.0] + [0.0] * 99, BINARY)
    assert result.minimum_detectable_effect == pytest.approx(0.06)


def test_holm_can_take_back_what_one_slice_alone_would_show() -> None:
    base, candidate = [0.0] * 70, [1.0] * 7 + [0.0] * 63  # p = 0.0156 in the first ten
    slices = {str(k): range(10 * k, 10 * k + 10) for k in range(7)}
    overall, parts = compare_slices(base, candidate, slices, BINARY)
    assert overall.verdict == "better"
    assert overall.holm_p == overall.p
    assert parts[0].p == 2 / 2**7
    assert parts[0].holm_p == pytest.approx(7 * 2 / 2**7)
    assert parts[0].verdict == "not shown"
    assert "alone, but p = 0.109 after Holm's correction" in parts[0].reason
    # At alpha / 7 it takes 9 of the 10 items; a slice tested alone would need 6.
    assert parts[0].minimum_detectable_effect == pytest.approx(0.9)


def test_planted_nulls_are_rarely_shown_and_a_planted_difference_is() -> None:
    generator = random.Random(0)
    slices = {str(k): range(40 * k, 40 * k + 40) for k in range(4)}
    runs, overall_errors, slice_errors, found = 300, 0, 0, 0
    for _ in range(runs):
        base = [float(generator.random() < 0.5) for _ in range(160)]
        null = [float(generator.random() < 0.5) for _ in range(160)]
        better = [max(b, float(generator.random() < 0.25)) for b in base]
        overall, parts = compare_slices(base, null, slices, BINARY)
        overall_errors += overall.verdict != "not shown"
        slice_errors += any(part.verdict != "not shown" for part in parts)
        found += compare("all", base, better, BINARY).verdict == "better"
    limit = 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert overall_errors / runs <= limit
    assert slice_errors / runs <= limit  # any of the four: what Holm promises
    assert found / runs > 0.95


# The stage


def test_both_models_get_the_same_prompts_without_the_reference(tmp_path: Path) -> None:
    seen: list[list[Conversation]] = []

    def watching(identity: str) -> Answerer:
        answerer = answering(identity, lambda n: n % 2 == 0)

        def answer(conversations: Sequence[Conversation]) -> list[str]:
            seen.append(list(conversations))
            return answerer.answer(conversations)

        return replace(answerer, answer=answer)

    run(tmp_path, items(12), watching("new"), watching("old"))
    assert seen[0] == seen[1] == [e.conversation.prompt for e in items(12)]
    assert all(c.answer is None for c in seen[0])


def test_a_report_is_sealed_and_repeats_to_the_same_id(tmp_path: Path) -> None:
    candidate, base = answering("new", always), answering("old", lambda n: n % 3 == 0)
    report = run(tmp_path, items(60), candidate, base)
    assert report.results["verdict"] == "better"
    assert report.parents == ("checkpoint-old", "checkpoint-new")
    manifest = read_manifest(report.path)
    assert (manifest["kind"], manifest["id"]) == ("report", report.id)
    assert set(manifest["files"]) == {"report.html", "report.json", "scores.jsonl"}
    for name, digest in manifest["files"].items():
        assert file_hash(report.path / name) == digest
    assert json.loads((report.path / "report.json").read_text()) == report.results
    (tmp_path / "elsewhere").mkdir()
    assert run(tmp_path / "elsewhere", items(60), candidate, base).id == report.id


def test_the_same_evaluation_is_not_made_twice_and_another_is_not_written_over_it(
    tmp_path: Path,
) -> None:
    base = answering("old", never)
    report = run(tmp_path, items(8), answering("new", always), base)
    assert run(tmp_path, items(8), answering("new", unasked), answering("old", unasked)) == report
    with pytest.raises(ProjectError, match="holds another report: it differs in candidate, items"):
        run(tmp_path, items(9), answering("newer", unasked), base)
    assert read_manifest(tmp_path / "report")["id"] == report.id


def test_every_item_is_in_scores_with_both_answers(tmp_path: Path) -> None:
    examples = [*items(9), example("q9 what?", None), example("q10 \ud800 what?", "label1")]
    report = run(tmp_path, examples, answering("new", always), answering("old", lambda _: "no"))
    rows = [json.loads(line) for line in (report.path / "scores.jsonl").read_text().splitlines()]
    assert [row["item_id"] for row in rows] == [e.id for e in examples]
    assert [Conversation.from_json(row) for row in rows] == [
        e.conversation.prompt for e in examples
    ]
    assert [row["candidate_score"] for row in rows] == [1.0] * 9 + [None, 1.0]
    assert rows[9]["expected"] is None
    assert {row["base_answer"] for row in rows} == {"no"}
    assert report.results["overall"]["unscored"] == 1
    assert report.results["overall"]["n"] == 10
    assert any("1 of 11 items are unscored" in caveat for caveat in report.results["caveats"])


def test_slices_have_their_own_figures(tmp_path: Path) -> None:
    report = run(
        tmp_path,
        items(40),
        answering("new", lambda n: n % 2 == 0),
        answering("old", never),
    )
    even, odd = report.results["slices"]
    assert [(s["name"], s["n"], s["verdict"]) for s in (even, odd)] == [
        ("scope = even", 20, "better"),
        ("scope = odd", 20, "not shown"),
    ]
    assert even["holm_p"] == 2 * even["p"]


def test_items_from_the_training_data_are_counted_and_set_apart(tmp_path: Path) -> None:
    examples = items(30)
    # Upper case and white space do not hide a leak; an item not in the training data is no leak.
    trained = [example(f"  Q{n}  WHAT is it?", "label") for n in range(10)]
    prompts = frozenset(prompt_fingerprint(e.conversation) for e in trained)
    candidate, base = answering("new", lambda n: n < 10), answering("old", never)
    config = EvaluateConfig(tmp_path / "r")
    results = evaluate(config, examples, candidate, base, training_prompts=prompts).results
    assert results["clean"] is False
    assert results["leaked"] == [e.id for e in examples[:10]]
    assert results["headline"].startswith("Better, but not clean:")
    assert {s["name"]: (s["n"], s["verdict"]) for s in results["slices"]} == {
        LEAKED: (10, "better"),
        UNSEEN: (20, "not shown"),
    }
    assert "Without them: not shown, 0.0 points on 20 items." in results["caveats"][0]
    assert "Better, but not clean" in (tmp_path / "r" / "report.html").read_text()


def test_clean_is_only_what_was_checked(tmp_path: Path) -> None:
    candidate, base = answering("new", always), answering("old", never)
    config = EvaluateConfig(tmp_path / "r")
    unchecked = evaluate(config, items(10), candidate, base).results
    assert unchecked["clean"] is None
    assert "Not checked" in unchecked["caveats"][0]
    config = EvaluateConfig(tmp_path / "s")
    checked = evaluate(config, items(10), candidate, base, training_prompts=frozenset()).results
    assert checked["clean"] is True
    assert checked["caveats"] == []


def test_what_makes_a_comparison_unfair_is_told(tmp_path: Path) -> None:
    examples = [*items(6), example("q0 WHAT  is it?", "label0", scope="even")]
    base = answering("same", always)
    candidate = replace(base, settings={"decoding": "sampled"})
    caveats = " ".join(run(tmp_path, examples, candidate, base).results["caveats"])
    assert "1 of 7 items repeat another item's prompt" in caveats
    assert "Candidate and base are the same model." in caveats
    assert "decoding is greedy for the base and sampled for the candidate" in caveats


# Faults


def test_wrong_items_are_refused_before_any_answer(tmp_path: Path) -> None:
    answerer = answering("x", unasked)
    twice = [*items(3), items(3)[1]]
    with pytest.raises(InputError, match="no items"):
        run(tmp_path, [], answerer, answerer)
    with pytest.raises(
        InputError, match=r"held_out\.jsonl: 1 of the items are there more than once"
    ):
        run(tmp_path, twice, answerer, answerer)
    with pytest.raises(InputError, match="none of the 2 items has a reference answer"):
        run(tmp_path, [example("a", None), example("b", " ")], answerer, answerer)
    with pytest.raises(ConfigError, match=r"no item has the field 'scop'; did you mean 'scope'\?"):
        evaluate(EvaluateConfig(tmp_path / "r", slice_by=("scop",)), items(3), answerer, answerer)
    many = [example(f"q{n}", "label", row=str(n)) for n in range(60)]
    with pytest.raises(ConfigError, match="'row' has 60 values, too many"):
        evaluate(EvaluateConfig(tmp_path / "r", slice_by=("row",)), many, answerer, answerer)
    words = [example(f"q{n}", "word") for n in range(3)]
    with pytest.raises(InputError, match="'numeric' can use none of the 3 references"):
        evaluate(EvaluateConfig(tmp_path / "r", score="numeric"), words, answerer, answerer)
    assert list(tmp_path.iterdir()) == []


def test_all_wrong_settings_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        EvaluateConfig(tmp_path, alpha=2, resamples=10, max_tokens=0, shown=-1)
    assert all(
        f"{key} = " in str(caught.value) for key in ("alpha", "resamples", "max_tokens", "shown")
    )


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "thesis.md").write_text("years of work")
    answerer = answering("x", unasked)
    with pytest.raises(ProjectError, match="is no report"):
        run(tmp_path, items(3), answerer, answerer)
    assert (tmp_path / "report" / "thesis.md").read_text() == "years of work"
    with pytest.raises(ProjectError, match=r"thesis\.md: cannot be written to"):
        run(tmp_path / "report" / "thesis.md", items(3), answerer, answerer)


def test_a_run_that_dies_leaves_nothing_half_written(tmp_path: Path) -> None:
    def dies(n: int) -> bool:
        if n == 5:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, items(8), answering("new", dies), answering("old", never))
    assert list(tmp_path.iterdir()) == []


# The page

ATTACK = '<script>alert("x")</script><img src=http://evil.example/x onerror=y> & "q" \ud800'


class Reader(HTMLParser):
    """Checks that tags nest and collects them with their attributes."""

    VOID = frozenset({"meta", "br", "line", "circle", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def page(folder: Path) -> tuple[str, Reader]:
    text = (folder / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return text, reader


@pytest.fixture
def attacked(tmp_path: Path) -> Path:
    """A report in which every text a stranger could write is hostile."""
    examples = [
        Example(
            Conversation((Message("user", f"q{n} {ATTACK}"), Message("assistant", ATTACK))),
            ATTACK,
            {ATTACK: ATTACK},
        )
        for n in range(8)
    ]
    candidate = replace(answering("new", lambda n: ATTACK if n else ""), name=ATTACK)
    base = replace(answering("old", lambda n: f"{ATTACK} {n}" if n else ATTACK), name=ATTACK)
    base = replace(base, settings={ATTACK: ATTACK})
    config = EvaluateConfig(tmp_path / "r", slice_by=(ATTACK,))
    leaked = frozenset({prompt_fingerprint(examples[0].conversation)})
    evaluate(config, examples, candidate, base, training_prompts=leaked)
    return tmp_path / "r"


def test_the_page_escapes_everything_and_asks_nothing_of_any_network(attacked: Path) -> None:
    text, reader = page(attacked)
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "img", "link", "iframe", "object", "a", "form", "base"}
    for tag, attributes in reader.tags:
        assert not {"src", "href", "srcset", "onerror", "style"} & attributes.keys(), tag
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|https?:", style[1])
    # The only address on the page is the attack's own, as harmless text.
    assert set(re.findall(r"https?://[^\s/]+", text)) == {"http://evil.example"}
    assert "default-src 'none'" in text


def test_the_page_is_readable_by_machine_and_by_ear(attacked: Path) -> None:
    text, reader = page(attacked)
    assert text.startswith("<!doctype html>")
    plots = [attributes for tag, attributes in reader.tags if attributes.get("role") == "img"]
    assert len(plots) == 3
    assert all("all items" in (p["aria-label"] or "") for p in plots[:2])
    assert "candidate better: 7; no difference: 0; base better: 1" in (plots[2]["aria-label"] or "")
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_the_page_shows_losses_and_wins_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    candidate, base = answering("new", lambda n: n % 4 != 0), answering("old", lambda n: n % 4 == 0)
    config = EvaluateConfig(tmp_path / "r", shown=6)
    report = evaluate(config, items(40), candidate, base)
    text, reader = page(report.path)
    assert "<h2>Losses: 10</h2>" in text
    assert "<h2>Wins: 30</h2>" in text
    assert sum(tag == "article" for tag, _ in reader.tags) == 12
    assert text.count("6 are shown") == 2
    assert text.count("Answer with one label.") == 1  # a system turn that all share is told once


def test_a_slice_without_a_scored_item_is_told_and_drawn_nowhere(tmp_path: Path) -> None:
    examples = [*items(10), example("q11 odd one", None, scope="none")]
    report = run(tmp_path, examples, answering("a", always), answering("b", never))
    empty = next(s for s in report.results["slices"] if s["name"] == "scope = none")
    assert (empty["n"], empty["unscored"], empty["p"]) == (0, 1, None)
    assert empty["reason"] == "no item of it is scored"
    page(report.path)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_ticks_cover_the_axis_and_are_few_and_even(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    if high - low < 1e-6:
        return
    ticks = _ticks(low, high)
    assert 3 <= len(ticks) <= 7
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9


# A real model


def test_a_real_model_answers_through_the_bridge(tmp_path: Path) -> None:
    base = load_model(str(tiny_base(tmp_path / "base", seed=0)), precision="fp32")
    candidate = load_model(str(tiny_base(tmp_path / "candidate", seed=1)), precision="fp32")
    conversations = [e.conversation for e in items(3)]
    answerer = model_answerer("base", base, max_tokens=8)
    prompts = [render_prompt(c, base.template) for c in conversations]
    expected = [c.text for c in generate(base, prompts, Sampling(max_tokens=8))]
    assert answerer.answer(conversations) == expected
    assert answerer.identity == base.identity

    # References made of the candidate's own answers: it must win every item that it has to itself.
    theirs = model_answerer("candidate", candidate, max_tokens=8)
    answers = theirs.answer(conversations)
    examples = [
        replace(e, conversation=e.conversation.answered(answer))
        for e, answer in zip(items(3), answers, strict=True)
    ]
    report = evaluate(EvaluateConfig(tmp_path / "r", score="exact"), examples, theirs, answerer)
    overall = report.results["overall"]
    assert overall["candidate"]["mean"] == 1.0
    assert overall["losses"] == 0
    assert report.parents == (base.identity, candidate.identity)
    assert report.results["base"]["settings"]["decoding"] == "greedy, at most 8 tokens"
    assert not any("same settings" in caveat for caveat in report.results["caveats"])
