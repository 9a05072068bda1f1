"""How far annotators agree, by the statistic that fits what they were asked; with intervals.

by_kind.py      agreement: everything that fits a task's kind, in one pass
chance.py       percent, Fleiss' κ, Krippendorff's α, Gwet's AC1 and AC2
pairs.py        Cohen's κ, plain and weighted
text.py         edit distance, chrF
spans.py        F1, exact and overlapping
ranks.py        Kendall's τ-b and W
similarity.py   how alike two answers of any kind are
distances.py    how far apart, for the weighted statistics
estimate.py     a statistic and its interval, by bootstrap
"""

from burnish.label.agreement.by_kind import Agreement, Measure, Pair, agreement
from burnish.label.agreement.chance import (
    Answers,
    fleiss_kappa,
    gwet_ac,
    krippendorff_alpha,
    percent_agreement,
)
from burnish.label.agreement.estimate import Estimate
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
