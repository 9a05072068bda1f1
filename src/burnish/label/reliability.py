"""How reliable each annotator is, by the model of Dawid and Skene, and which value is then right.

A. P. Dawid and A. M. Skene, "Maximum likelihood estimation of observer error-rates using the EM
algorithm", Applied Statistics 28(1), 1979: every example has one right value, and each annotator
gives each value with a probability that depends on the right one alone. Which value is right, and
how often who errs, are estimated in turn, from the majority on.

With many values most cells of an annotator's error table are never seen. So each of its rows has a
few answers added, right as often as all of the annotator's are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_STEPS = 50
_STILL = 1e-3


@dataclass(frozen=True)
class Ratings:
    """Who answered what: one entry for each answer."""

    example: Ints
    """Numbers from 0, (n,)."""
    annotator: Ints
    value: Ints
    known: Ints
    """The right value of each example, -1 where it is not known, (examples,)."""
    annotators: int
    values: int


@dataclass(frozen=True)
class Reliability:
    """What is known of the annotators."""

    prior: Floats
    """How common each right value is, (q,)."""
    errors: Floats
    """How often an annotator gives each value, by the right one, (annotators, given, right)."""

    def probabilities(self, ratings: Ratings, prior: Floats | None = None) -> Floats:
        """Of each value to be right for each example, (examples, q).

        `prior` has a model's probabilities, (examples, q), in place of how common each value is.
        """
        said = np.log(self.errors)[ratings.annotator, ratings.value]
        odds = _sums(said, ratings.example, len(ratings.known))
        odds += np.log(self.prior if prior is None else prior)
        found = np.exp(odds - odds.max(1, keepdims=True))
        found /= found.sum(1, keepdims=True)
        known = np.flatnonzero(ratings.known >= 0)
        found[known] = np.eye(ratings.values)[ratings.known[known]]
        return found


def dawid_skene(ratings: Ratings, *, added: float = 2.0) -> Reliability:
    """Estimate from what the annotators answered.

    Needs three annotators, or examples whose right value is known: of two who disagree nothing
    else says who is right.

    Args:
        ratings: the answers.
        added: how many answers are added to each row of an error table. On CLINC150's 150 intents
            with planted errors it did not matter between 1 and 10.
    """
    one_hot = np.eye(ratings.values)
    right = _sums(one_hot[ratings.value], ratings.example, len(ratings.known))
    right /= right.sum(1, keepdims=True)
    for _ in range(_MOST_STEPS):
        found = _estimated(ratings, right, added)
        before, right = right, found.probabilities(ratings)
        if np.abs(right - before).max() < _STILL:
            break
    return found


def _estimated(ratings: Ratings, right: Floats, added: float) -> Reliability:
    """The most likely prior and error tables, were the right values known."""
    q, annotators = ratings.values, ratings.annotators
    cell = ratings.annotator * q + ratings.value
    seen = _sums(right[ratings.example], cell, annotators * q).reshape(annotators, q, q)
    correct, total = np.trace(seen, axis1=1, axis2=2), seen.sum((1, 2))
    share = ((correct + 1) / (total + 2))[:, None, None]
    seen += added * np.where(np.eye(q, dtype=bool), share, (1 - share) / max(q - 1, 1))
    prior = right.sum(0) + added / q
    return Reliability(prior / prior.sum(), seen / seen.sum(1, keepdims=True))


def _sums(rows: Floats, group: Ints, groups: int) -> Floats:
    """The rows (n, q) summed by the group (n,) they belong to, (groups, q)."""
    # Several times as quick as np.add.at.
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    sums = np.zeros((groups, rows.shape[1]))
    if len(order):
        sums[group[order][first]] = np.add.reduceat(rows[order], first)
    return sums
