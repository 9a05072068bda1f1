"""The stage: every check over every example in one pass; findings kept, safe fixes applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from burnish.audit.answer_equals_prompt import answer_equals_prompt
from burnish.audit.conflicting_answers import ConflictingAnswers
from burnish.audit.empty_answer import empty_answer
from burnish.audit.exact_duplicate import ExactDuplicates
from burnish.audit.template_token_leak import template_token_leak
from burnish.progress import progress
from burnish.project import Project
from burnish.store import Store
from burnish.store.answers import Answered, read_answered
from burnish.store.examples import count_examples
from burnish.store.findings import count_survivors, exclude, replace_findings
from burnish.tasks import find_task
from burnish.types import Finding

_CHECKS_OF_ONE = (empty_answer, answer_equals_prompt, template_token_leak)


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """What an audit looks at, and whether it mends."""

    fix: bool = False
    """Exclude what is safe to exclude: later exact duplicates and empty answers. Nothing is
    deleted; an exclusion keeps its reason."""
    task: str | None = None
    """Name of the labelling task whose answers are audited; None is the project's only task."""


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit found, and what is left."""

    findings: tuple[Finding, ...]
    excluded: int
    """Examples this audit excluded; 0 unless `fix`."""
    survival: Mapping[str, tuple[int, int]]
    """For each source: examples received, and those not excluded by this or an earlier audit."""


def audit(config: AuditConfig, store: Store, project: Project) -> AuditResult:
    """Check every example that is not excluded, with the answer in force (`store.answers`).

    The findings replace those of the audit before. Memory: 96 bytes an example, and the findings.

    Raises:
        ConfigError: there is no such task, or none was named and there are several.
        InputError: an answer is of another kind than the task now is.
    """
    task = find_task(project, config.task)
    with store.reading() as connection:
        total = count_examples(connection)
        stream = read_answered(connection, task)
        findings = _check(progress(stream, "auditing", unit=" examples", total=total))
    with store.writing() as connection:
        replace_findings(connection, findings, actor="audit")
        fixes = _safe_fixes(findings) if config.fix else {}
        excluded = exclude(connection, fixes, actor="audit")
        return AuditResult(tuple(findings), excluded, count_survivors(connection))


def _check(examples: Iterable[Answered]) -> list[Finding]:
    duplicates, conflicts = ExactDuplicates(), ConflictingAnswers()
    findings = []
    for answered in examples:
        duplicates.see(answered)
        conflicts.see(answered)
        findings += [found for check in _CHECKS_OF_ONE if (found := check(answered))]
    return [*duplicates.findings(), *conflicts.findings(), *findings]


def _safe_fixes(findings: Iterable[Finding]) -> dict[str, str]:
    """Example id -> reason. A cluster's first member is never in it."""
    reasons = {}
    for finding in findings:
        first, *later = finding.example_ids
        if finding.check == "exact_duplicate":
            reasons.update(dict.fromkeys(later, f"exact_duplicate of {first}"))
        if finding.check == "empty_answer":
            reasons[first] = "empty_answer"
    return reasons
