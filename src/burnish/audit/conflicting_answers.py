"""One prompt with several answers: which is right only a person can say."""

from __future__ import annotations

from collections.abc import Iterator

from burnish.audit.clusters import Clusters
from burnish.records.fingerprint import answer_fingerprint, has_prompt, prompt_fingerprint
from burnish.store.answers import Answered
from burnish.types import Finding


class ConflictingAnswers:
    """See every example, then ask for the findings. Plain texts have no prompt to agree on."""

    def __init__(self) -> None:
        self._answers = Clusters()
        self._examples = Clusters()

    def see(self, answered: Answered) -> None:
        """Take note of one example."""
        answer = answered.conversation.answer
        if answered.status != "answered" or answer is None or not has_prompt(answered.conversation):
            return
        prompt = prompt_fingerprint(answered.conversation)
        self._answers.add(prompt, answer_fingerprint(answer))
        self._examples.add(prompt, answered.example.id)

    def findings(self) -> Iterator[Finding]:
        """One per prompt that has several answers, its examples in order of arrival."""
        # Both hold the same keys in the same order, so their groups are the same.
        for answers, ids in zip(self._answers.groups(), self._examples.groups(), strict=True):
            different = len(set(answers))
            if different > 1:
                message = f"{different} different answers to the same prompt"
                yield Finding("conflicting_answers", ids, message)
