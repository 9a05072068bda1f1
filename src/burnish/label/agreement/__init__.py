"""How far annotators agree, by the statistic that fits what they were asked; with intervals.

by_kind.py      agreement: everything that fits a task's kind
counted.py      of choices, verdicts and ratings: all of them, counted
sampled.py      of the other kinds: a sample, answer against answer
measures.py     what both say
coded.py        answers that are one of a few values, as numbers in arrays
chance.py       percent, Fleiss' κ, Krippendorff's α, Gwet's AC1 and AC2
pairs.py        Cohen's κ, plain and weighted
text.py         edit distance, chrF
spans.py        F1, exact and overlapping
ranks.py        Kendall's τ-b and W
similarity.py   how alike two answers of any kind are
distances.py    how far apart, for the weighted statistics
estimate.py     a statistic and its interval, by bootstrap
"""

from burnish.label.agreement.by_kind import agreement
from burnish.label.agreement.chance import (
    fleiss_kappa,
    gwet_ac,
    krippendorff_alpha,
    percent_agreement,
)
from burnish.label.agreement.coded import Answers
from burnish.label.agreement.estimate import Estimate
from burnish.label.agreement.measures import Agreement, Measure, Pair
from burnish.label.agreement.pairs import cohen_kappa
from burnish.label.agreement.ranks import kendall_tau, kendall_w
from burnish.label.agreement.similarity import comparable, similarity
from burnish.label.agreement.text import chrf, edit_distance

__all__ = [
    "Agreement",
    "Answers",
    "Estimate",
    "Measure",
    "Pair",
    "agreement",
    "chrf",
    "cohen_kappa",
    "comparable",
    "edit_distance",
    "fleiss_kappa",
    "gwet_ac",
    "kendall_tau",
    "kendall_w",
    "krippendorff_alpha",
    "percent_agreement",
    "similarity",
]
