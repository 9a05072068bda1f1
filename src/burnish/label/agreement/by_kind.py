"""The statistics that fit a task's kind, from one pass over the examples."""

from __future__ import annotations

from collections.abc import Iterable

from burnish.label.agreement.coded import Answers, coded
from burnish.label.agreement.counted import counted_agreement
from burnish.label.agreement.measures import Agreement
from burnish.label.agreement.sampled import SharedSample, sampled_agreement
from burnish.label.agreement.similarity import is_categorical
from burnish.tasks import Task


def agreement(task: Task, examples: Iterable[Answers], *, seed: int = 0) -> Agreement:
    """The statistics that fit the task's kind; docs/agreement.md says which and why.

    Answers are texts in their canonical form (`records.answers`). Choices, verdicts and ratings are
    counted, however many examples there are; of the others, at most `SAMPLE` examples are drawn.
    """
    if is_categorical(task):
        return counted_agreement(task, coded(task, examples), seed=seed)
    sample = SharedSample(task, seed)
    for answers in examples:
        sample.add(answers)
    return sampled_agreement(task, sample, seed=seed)
