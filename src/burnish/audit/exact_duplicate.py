"""The same conversation again, but for case, white space and Unicode's look-alike forms."""

from __future__ import annotations

from collections.abc import Iterator

from burnish.audit.clusters import Clusters
from burnish.audit.empty_answer import empty_answer
from burnish.records.fingerprint import conversation_fingerprint
from burnish.store.answers import Answered
from burnish.types import Finding


class ExactDuplicates:
    """See every example, then ask for the findings.

    Left out are examples people still disagree about or have flagged, and those an empty answer
    removes anyway: a cluster must keep one member that is of use.
    """

    def __init__(self) -> None:
        self._clusters = Clusters()

    def see(self, answered: Answered) -> None:
        """Take note of one example."""
        if answered.status in ("answered", "unlabelled") and empty_answer(answered) is None:
            key = conversation_fingerprint(answered.conversation)
            self._clusters.add(key, answered.example.id)

    def findings(self) -> Iterator[Finding]:
        """One per cluster, its members in order of arrival."""
        for ids in self._clusters.groups():
            yield Finding(
                "exact_duplicate",
                ids,
                f"{len(ids)} times the same conversation",
                "exclude all but the first",
            )
