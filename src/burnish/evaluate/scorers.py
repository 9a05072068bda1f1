"""Scorers: how good an answer is beside the reference, from 0 to 1.

A scorer is a function `(answer, expected) -> float | None`. None means unscored: the reference is
missing or has nothing in it that the scorer could compare. It never counts as zero and enters no
mean. A bad answer is never unscored, it scores 0.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import NamedTuple

from burnish.config import did_you_mean
from burnish.errors import ConfigError

Scorer = Callable[[str, str], float | None]

# A reference of up to this many words is a label rather than a text.
_LABEL_WORDS = 5

_FINAL_PUNCTUATION = ".!?,;:…。！？"
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

# A minus is a sign where it touches the number and nothing touches it from before: "-4", but not
# "3-4" or "5 - 4". The exponent is bounded: "1e999999999" is a number of a billion digits.
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)])[-−])?[$€£¥]?"
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,2}(?!\d))?|\.\d+)"
    r"(?:\s?/\s?(?P<denominator>\d+))?"
)


class ChosenScorer(NamedTuple):
    """The scorer of a run."""

    name: str
    score: Scorer
    reason: str
    """Why this one: the user asked for it, or the rule of `auto` that fits the references."""


def exact(answer: str, expected: str) -> float | None:
    """1 if the two are the same once normalised, else 0.

    Normalised: Unicode NFKC, case folded, runs of white space as one blank, none at the ends, final
    punctuation dropped.
    """
    reference = _normalised(expected)
    return float(_normalised(answer) == reference) if reference else None


def includes(answer: str, expected: str) -> float | None:
    """1 if the answer contains the reference, both normalised as for `exact`, else 0."""
    reference = _normalised(expected)
    return float(reference in _normalised(answer)) if reference else None


def f1(answer: str, expected: str) -> float | None:
    """SQuAD's F1 of the words the two share (Rajpurkar et al. 2016, arXiv:1606.05250).

    Lower case, punctuation and the articles a, an, the dropped, cut at white space; a text with no
    words left matches only another such. Of little use in languages written without blanks.
    """
    if not expected.strip():
        return None
    words, reference = _squad_words(answer), _squad_words(expected)
    if not words or not reference:
        return float(words == reference)
    shared = (Counter(words) & Counter(reference)).total()
    return 2 * shared / (len(words) + len(reference))


def numeric(answer: str, expected: str) -> float | None:
    """1 if the last number of the answer equals the last number of the reference, else 0.

    The number after GSM8K's `####` wins where there is one. Commas between groups of three digits
    are dropped, signs, decimals, fractions (3/4) and exponents are read, units and currencies are
    not: 18, 18.00, $18 and "18 km" are equal; 50 % and 0.5 are not.
    """
    reference = _last_number(expected)
    return None if reference is None else float(_last_number(answer) == reference)


def refusal(answer: str, expected: str, *, refusal_text: str) -> float | None:
    """1 if the answer refuses exactly when the reference does, else 0.

    To refuse is to contain `refusal_text`, both normalised as for `exact`. So it counts what is let
    through and what is held back without need alike; slice by scope to see the two apart.
    """
    if not expected.strip():
        return None
    return float(includes(answer, refusal_text) == includes(expected, refusal_text))


def choose_scorer(
    name: str, references: Sequence[str | None], refusal_text: str | None
) -> ChosenScorer:
    """The scorer of that name, or for `auto` the one that fits the references.

    `auto` takes `numeric` if every reference has a number after `####`; else `exact` if every
    reference is a label (at most five words, or a text that more than one item has: a refusal);
    else `f1`.

    Raises:
        ConfigError: no such scorer, or `refusal` without a refusal text.
    """
    scorers: dict[str, Scorer] = {
        "exact": exact, "includes": includes, "f1": f1, "numeric": numeric
    }  # fmt: skip
    if name == "auto":
        name, reason = _fitting([r for r in references if r])
        return ChosenScorer(name, scorers[name], reason)
    if name == "refusal":
        if not refusal_text or not _normalised(refusal_text):
            raise ConfigError(
                "the scorer `refusal` needs the text that the model refuses with",
                where="refusal_text",
                do='give --set refusal_text="Sorry, I cannot help with that."',
            )
        score: Scorer = partial(refusal, refusal_text=refusal_text)
        return ChosenScorer(name, score, "asked for")
    if name not in scorers:
        hint = did_you_mean(name, ("auto", "refusal", *scorers))
        raise ConfigError(f"there is no scorer {name!r}{hint}", where="score")
    return ChosenScorer(name, scorers[name], "asked for")


def _fitting(references: Sequence[str]) -> tuple[str, str]:
    if all("####" in r and _last_number(r) is not None for r in references):
        return "numeric", "every reference ends in a number after ####"
    uses = Counter(references)
    if all(len(r.split()) <= _LABEL_WORDS or uses[r] > 1 for r in references):
        return "exact", "every reference is a label: short, or shared by several items"
    return "f1", "the references are free text"


def _normalised(text: str) -> str:
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.rstrip(_FINAL_PUNCTUATION + " ")


def _squad_words(text: str) -> list[str]:
    # The order of SQuAD's own script: punctuation first, then articles.
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _last_number(text: str) -> Fraction | None:
    found = list(_NUMBER.finditer(text.rpartition("####")[2])) or list(_NUMBER.finditer(text))
    if not found:
        return None
    match = found[-1]
    try:
        value = Fraction(match["number"].replace(",", ""))
        if match["denominator"]:
            value /= int(match["denominator"])
    except (ValueError, ZeroDivisionError):
        # More digits than Python converts (4300), or a division by 0.
        return None
    return -value if match["sign"] else value
