"""Train, validation or test, so that what belongs together never stands on both sides."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from burnish.types import Split


class Splitter:
    """Splits prompts by hash: the same prompt and seed give the same split, whatever else there is.

    Prompts that share a subject's personal data are one group and stay together; a group's split
    follows from the smallest hash in it, so the order of arrival does not matter.
    """

    def __init__(
        self,
        subject_prompts: Iterable[tuple[str, str]],
        *,
        validation: float,
        test: float,
        seed: int,
    ) -> None:
        """Join prompts by (subject id, prompt hash); `validation` and `test` are fractions."""
        self._validation, self._test, self._seed = validation, test, seed
        # Union-find over prompt hashes; a prompt that is not in it is a group by itself.
        self._parents: dict[str, str] = {}
        first_prompt: dict[str, str] = {}
        for subject, prompt in subject_prompts:
            self._join(prompt, first_prompt.setdefault(subject, prompt))

    def split(self, prompt_hash: str) -> Split:
        """The split this prompt's group falls into."""
        digest = hashlib.sha256(f"{self._seed}:{self._group(prompt_hash)}".encode()).digest()
        place = int.from_bytes(digest[:6], "big") / 2**48
        if place < self._test:
            return "test"
        return "validation" if place < self._test + self._validation else "train"

    def _group(self, prompt: str) -> str:
        parents = self._parents
        while (parent := parents.get(prompt, prompt)) != prompt:
            # Path halving keeps chains short.
            parents[prompt] = parents.get(parent, parent)
            prompt = parent
        return prompt

    def _join(self, one: str, other: str) -> None:
        smaller, larger = sorted((self._group(one), self._group(other)))
        self._parents[larger] = smaller
