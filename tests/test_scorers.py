"""Scorers: pytest tests/test_scorers.py"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.errors import ConfigError
from burnish.evaluate.scorers import choose_scorer, exact, f1, includes, numeric, refusal

GSM8K = Path(__file__).parents[1].parent / "shared" / "data" / "gsm8k_test.jsonl"
SORRY = "Sorry, I can only help with banking."


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        ("transfer", "transfer", 1),
        (" Transfer.\n", "transfer", 1),
        ("freeze   account", "Freeze account!", 1),
        ("ｔransfer", "transfer", 1),  # NFKC: a full-width t
        ("Straße", "STRASSE", 1),
        ("transfers", "transfer", 0),
        ("", "transfer", 0),
        ("anything", " \n", None),
        ("anything", "...", None),
    ],
)
def test_exact(answer: str, expected: str, value: float | None) -> None:
    assert exact(answer, expected) == value


def test_includes() -> None:
    assert includes("The label is: TRANSFER, I think.", "transfer") == 1
    assert includes("trans fer", "transfer") == 0
    assert includes("transfer", "") is None


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        ("the cat sat", "a cat sat", 1),  # articles are dropped
        ("cat", "The cat, sat.", 2 * 1 * 0.5 / 1.5),  # precision 1, recall 1/2
        ("dog", "cat", 0),
        ("", "cat", 0),
        ("the", "A", 1),  # SQuAD: no words left on either side
        ("b", "A", 0),
        ("cat cat", "cat", 2 * 0.5 * 1 / 1.5),  # a word counts as often as it stands there
        ("cat", "", None),
    ],
)
def test_f1_is_squads(answer: str, expected: str, value: float | None) -> None:
    assert f1(answer, expected) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        ("She makes 18 dollars.", "9 * 2 = 18\n#### 18", 1),
        ("#### 18", "#### 18", 1),
        ("#### 18\nThat was step 3", "#### 18", 0),  # the last number after #### counts
        ("so the answer is 18.00", "#### 18", 1),
        ("$1,234.50", "#### 1234.5", 1),
        ("1,234,567 people", "1234567", 1),
        ("-4", "#### -4", 1),
        ("−4 °C", "#### -4", 1),  # U+2212
        ("5 - 4", "#### 4", 1),
        ("3-4", "#### 4", 1),
        ("-$4", "-4", 1),
        ("3/4 of it", "0.75", 1),
        ("75 %", "0.75", 0),
        (".5", "1/2", 1),
        ("1.5e3", "1500", 1),
        ("1/0", "1", 0),
        ("eighteen", "#### 18", 0),
        ("", "#### 18", 0),
        ("9" * 5000, "#### 18", 0),
        ("1e999999999", "#### 18", 0),
        ("18", "eighteen", None),
        ("18", "", None),
    ],
)
def test_numeric(answer: str, expected: str, value: float | None) -> None:
    assert numeric(answer, expected) == value


@pytest.mark.parametrize(
    ("answer", "expected", "value"),
    [
        (SORRY, SORRY, 1),
        (f"Hm. {SORRY.upper()} Ask me about cards.", SORRY, 1),
        ("transfer", SORRY, 0),  # let through
        (SORRY, "transfer", 0),  # held back without need
        ("balance", "transfer", 1),  # not this scorer's business
        (SORRY, " ", None),
    ],
)
def test_refusal(answer: str, expected: str, value: float | None) -> None:
    assert refusal(answer, expected, refusal_text=SORRY) == value


@pytest.mark.parametrize("scorer", [exact, includes, f1, numeric])
@given(st.text(max_size=40), st.text(max_size=40))
def test_laws_of_every_scorer(scorer: object, answer: str, expected: str) -> None:
    assert callable(scorer)
    value = scorer(answer, expected)
    assert value is None or 0 <= value <= 1
    # Whether an item is scored hangs on its reference alone, so no bad answer leaves the mean.
    assert (scorer(expected, expected) is None) == (value is None)
    assert scorer(expected, expected) in (1, None)


@pytest.mark.parametrize(
    ("references", "chosen"),
    [
        (["transfer", "pay_bill", "pin change"], "exact"),
        (["transfer", SORRY, SORRY, None], "exact"),
        (["transfer", SORRY], "f1"),
        (["2 + 2 = 4\n#### 4", "so #### 1,000"], "numeric"),
        (["4", "5"], "exact"),
        (["#### none", "a longer text than a label would ever be"], "f1"),
    ],
)
def test_auto_follows_its_rule(references: list[str | None], chosen: str) -> None:
    scorer = choose_scorer("auto", references, None)
    assert scorer.name == chosen
    assert scorer.reason


def test_an_unknown_scorer_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no scorer 'numerc'; did you mean 'numeric'\?"):
        choose_scorer("numerc", ["4"], None)


@pytest.mark.data
@pytest.mark.skipif(not GSM8K.exists(), reason="the shared data are not here")
def test_numeric_reads_every_reference_of_gsm8k() -> None:
    references = [json.loads(line)["answer"] for line in GSM8K.read_text("utf-8").splitlines()]
    assert choose_scorer("auto", references, None).name == "numeric"
    for reference in references:
        number = reference.split("#### ")[1]
        assert numeric(f"So she has {number} dollars.", reference) == 1
        assert numeric(f"So she has 1{number.lstrip('-')} dollars.", reference) == 0


def test_refusal_needs_its_text() -> None:
    with pytest.raises(ConfigError, match="refusal_text"):
        choose_scorer("refusal", ["x"], None)
    assert choose_scorer("refusal", ["x"], SORRY).score(SORRY, SORRY) == 1
