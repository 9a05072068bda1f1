"""Findings: what is wrong with the examples, before a model learns it. One check a file.

exact_duplicate.py      the same conversation again
empty_answer.py         an answer that says nothing
conflicting_answers.py  one prompt, several answers
answer_equals_prompt.py the answer repeats the prompt
template_token_leak.py  a chat template's own tokens inside a text
"""

from burnish.audit.audit import AuditConfig, AuditResult, audit

__all__ = ["AuditConfig", "AuditResult", "audit"]
