"""What an answer is, for each kind of task, and what it does to an example.

    kind          an answer, as text                                    what a snapshot trains on
    write         the answer                                            the answer
    edit          the answer                                            the answer
    choose        one of `choices`                                      the choice
    choose_many   JSON list of choices, in their order; may be []       the list
    rate          a whole number of the scale                           the number
    rank          JSON list of lists of candidates' numbers, from 0,    the best candidate
                  best first; those in one list are equally good
    spans         JSON list of {"start", "end", "label"} by start;      the list
                  characters (code points) of the last user turn
    dialogue      JSON list of {"role", "content"}: every turn          the turns
    accept        {"verdict": "accept"}, or                             the example as it is;
                  {"verdict": "reject", "reason": "..."}                a rejected one is left out

Answers are kept in a canonical form, so that equal answers are equal texts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from burnish.errors import InputError
from burnish.hashing import canonical_json
from burnish.tasks import Task
from burnish.types import ROLES, Conversation, Example, Message, Role

if TYPE_CHECKING:
    from burnish.store.drafts import Draft

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_FORMS = {
    "choose_many": 'write a JSON list of choices: ["a", "b"]',
    "rank": "write a JSON list of lists of candidates' numbers, best first: [[2], [0, 1]]",
    "spans": 'write a JSON list of spans: [{"start": 0, "end": 5, "label": "name"}]',
    "dialogue": 'write a JSON list of turns: [{"role": "user", "content": "Hello"}, …]',
    "accept": 'write {"verdict": "accept"}, or {"verdict": "reject", "reason": "…"}',
}


def checked_answer(
    answer: str, task: Task, example: Example, candidates: Sequence[str] = ()
) -> str:
    """The answer in its canonical form.

    `candidates` are those of `candidates_of`; only `rank` asks for them.

    Raises:
        InputError: it is empty, cannot be kept as text, or is no answer of the task's kind to this
            example.
    """
    if not answer.strip():
        raise InputError("the answer is empty", do="write one, or skip the example")
    checked_text(answer)
    return _canonical(answer, task, example, candidates)


def checked_text(text: str) -> None:
    """Refuse what no store can keep: half a surrogate pair, which UTF-8 has no form for, and NUL.

    Raises:
        InputError: the text holds one.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("half a Unicode surrogate pair", do="take that character out") from None
    if "\0" in text:
        raise InputError("a NUL character", do="take that character out")


def candidates_of(example: Example, drafts: Iterable[Draft]) -> tuple[str, ...]:
    """The answers to be ranked, each once: the metadata's `candidates`, then the drafts.

    Drafts are only ever added, so a candidate keeps its number.
    """
    given = example.metadata.get("candidates")
    texts = [text for text in given if isinstance(text, str)] if isinstance(given, list) else []
    return tuple(dict.fromkeys([*texts, *(draft.text for draft in drafts)]))


def span_text(example: Example) -> str:
    """The text that spans are marked in: the last user turn; empty where there is none."""
    users = (m.content for m in reversed(example.conversation.messages) if m.role == "user")
    return next(users, "")


def spans_answer(spans: Iterable[tuple[int, int, str]]) -> str:
    """Spans given as (start, end, label), in any order, as an answer of the kind `spans`."""
    return canonical_json([{"start": s, "end": e, "label": label} for s, e, label in sorted(spans)])


def verdict_answer(verdict: str, reason: str = "") -> str:
    """A verdict, with its reason where there is one, as an answer of the kind `accept`."""
    return canonical_json({"verdict": verdict} | ({"reason": reason} if reason else {}))


def compared(answer: str, task: Task) -> str:
    """What is compared of an answer: two people agree where this is equal.

    The text without surrounding white space; of `accept` the verdict, since a reason is a remark.
    """
    return _verdict(answer)[0] if task.kind == "accept" else answer.strip()


def applied(
    example: Example, answer: str, task: Task, candidates: Sequence[str] = ()
) -> Conversation | None:
    """The conversation to train on once this is the answer; None where it is to be left out.

    Raises:
        InputError: the answer is of another kind, as when the task's kind was changed since.
    """
    match task.kind:
        case "rank":
            best = _places(answer)[0][0]
            if best >= len(candidates):
                raise _unfit(f"there is no candidate {best}", "rank")
            return example.conversation.answered(candidates[best])
        case "dialogue":
            return Conversation(_turns(answer, example), example.conversation.tools)
        case "accept":
            return example.conversation if _verdict(answer)[0] == "accept" else None
        case _:
            return example.conversation.answered(answer)


def is_answered(example: Example, task: Task) -> bool:
    """Whether the example came with an answer of the task's kind.

    A ranking or a verdict is somebody's about an answer, so none comes with the example.
    """
    own = example.conversation.answer
    if own is None or task.kind in ("rank", "accept"):
        return False
    if task.kind in ("write", "edit", "dialogue"):
        return True
    try:
        checked_answer(own.content, task, example)
    except InputError:
        return False
    return True


def _canonical(answer: str, task: Task, example: Example, candidates: Sequence[str]) -> str:
    match task.kind:
        case "write" | "edit":
            return answer
        case "choose":
            return _choice(answer.strip(), task)
        case "choose_many":
            return _choices(answer, task)
        case "rate":
            return _rating(answer.strip(), task)
        case "rank":
            return _ranking(answer, candidates)
        case "spans":
            return _spans(answer, task, span_text(example))
        case "dialogue":
            turns = _turns(answer, example)
            return canonical_json([{"role": t.role, "content": t.content} for t in turns])
        case "accept":
            verdict, reason = _verdict(answer)
            if verdict == "accept" and example.conversation.answer is None:
                raise InputError("the example has no answer to accept", do="reject or skip it")
            return verdict_answer(verdict, reason)


def _choice(answer: str, task: Task) -> str:
    if answer not in task.choices:
        raise InputError(
            f"not among the choices: {answer[:80]!r}",
            do="choose one of the task's `choices` in burnish.toml",
        )
    return answer


def _choices(answer: str, task: Task) -> str:
    chosen = _list(answer, "choose_many")
    if not all(isinstance(choice, str) for choice in chosen):
        raise _unfit("a choice that is no text", "choose_many")
    chosen = [_choice(choice.strip(), task) for choice in chosen]
    _refuse_twice(chosen, "choose_many")
    return canonical_json([choice for choice in task.choices if choice in chosen])


def _rating(answer: str, task: Task) -> str:
    low, high = task.scale
    if not _WHOLE_NUMBER.fullmatch(answer) or not low <= int(answer) <= high:
        raise InputError(
            f"not on the scale: {answer[:80]!r}", do=f"give a whole number from {low} to {high}"
        )
    return str(int(answer))


def _ranking(answer: str, candidates: Sequence[str]) -> str:
    if len(candidates) < 2:
        raise InputError(
            f"there is nothing to rank: the example has {len(candidates)} candidates",
            do="add drafts, or collect it with a list of texts under `candidates`",
        )
    places = _places(answer)
    numbers = [number for place in places for number in place]
    _refuse_twice(numbers, "rank")
    known = range(len(candidates))
    for number in (n for n in numbers if n not in known):
        raise _unfit(f"there is no candidate {number}: they are 0 to {known[-1]}", "rank")
    for number in (n for n in known if n not in numbers):
        raise _unfit(f"candidate {number} has no place", "rank")
    return canonical_json(places)


def _places(answer: str) -> list[list[int]]:
    """Groups of candidates' numbers, best first, each group in order."""
    places = _list(answer, "rank")
    for place in places:
        if not isinstance(place, list) or not all(type(number) is int for number in place):
            raise _unfit("a place that is no list of whole numbers", "rank")
        if not place or min(place) < 0:
            raise _unfit("a place without candidates, or a number below 0", "rank")
    if not places:
        raise _unfit("a ranking without places", "rank")
    return [sorted(place) for place in places]


def _spans(answer: str, task: Task, text: str) -> str:
    spans = []
    for span in _list(answer, "spans"):
        if not isinstance(span, Mapping) or span.keys() != {"start", "end", "label"}:
            raise _unfit("a span has start, end and label, and nothing else", "spans")
        start, end, label = span["start"], span["end"], span["label"]
        if type(start) is not int or type(end) is not int or not isinstance(label, str):
            raise _unfit("start and end are whole numbers, label is a text", "spans")
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"a span that is empty or outside the text: {start} to {end} of "
                f"{len(text)} characters",
                do="count Unicode code points of the last user turn, from 0",
            )
        spans.append((start, end, _choice(label.strip(), task)))
    _refuse_twice(spans, "spans")
    return spans_answer(spans)


def _turns(answer: str, example: Example) -> tuple[Message, ...]:
    """The turns; one that stands as it did in the example keeps its tool calls and weights."""
    received = example.conversation.messages
    turns: list[Message] = []
    for n, turn in enumerate(_list(answer, "dialogue")):
        if not isinstance(turn, Mapping) or turn.keys() != {"role", "content"}:
            raise _unfit("a turn has role and content, and nothing else", "dialogue")
        role, content = turn["role"], turn["content"]
        if role not in ROLES or not isinstance(content, str):
            roles = ", ".join(ROLES)
            raise _unfit(f"a turn's role is one of {roles}, its content a text", "dialogue")
        # JSON may spell what a text cannot hold.
        checked_text(content)
        message = Message(cast(Role, role), content)
        if n < len(received) and (received[n].role, received[n].content) == (role, content):
            message = received[n]
        if not content.strip() and not message.tool_calls:
            raise InputError(f"turn {n + 1} is empty", do="write it, or take it out")
        _check_order(turns[-1].role if turns else None, message.role, n)
        turns.append(message)
    if not turns or turns[-1].role != "assistant":
        raise InputError("a dialogue ends with the assistant's turn", do="write one")
    return tuple(turns)


def _check_order(before: Role | None, role: Role, number: int) -> None:
    """A system turn opens; user and assistant take turns; tools answer the assistant."""
    after: dict[Role | None, tuple[Role, ...]] = {
        None: ("system", "user", "assistant"),
        "system": ("user", "assistant"),
        "user": ("assistant",),
        "assistant": ("user", "tool"),
        "tool": ("tool", "assistant"),
    }
    if role not in after[before]:
        place = f"after {before}" if before else "at the beginning"
        raise InputError(
            f"turn {number + 1} cannot be {role}: {place} comes {' or '.join(after[before])}",
            do="change its role, or write the turn that is missing",
        )


def _verdict(answer: str) -> tuple[str, str]:
    """The verdict and its reason; no reason is an empty text."""
    given = _parsed(answer, "accept")
    if not isinstance(given, Mapping) or not given.keys() <= {"verdict", "reason"}:
        raise _unfit("a verdict has verdict and reason, and nothing else", "accept")
    verdict, reason = given.get("verdict"), given.get("reason", "")
    if verdict not in ("accept", "reject") or not isinstance(reason, str):
        raise _unfit("a verdict is accept or reject, its reason a text", "accept")
    if verdict == "accept" and reason.strip():
        raise _unfit("a reason is for rejecting", "accept")
    if verdict == "reject" and not reason.strip():
        raise InputError("rejected without a reason", do="say why")
    checked_text(reason)
    return verdict, reason.strip()


def _list(answer: str, kind: str) -> list[Any]:
    given = _parsed(answer, kind)
    if not isinstance(given, list):
        raise _unfit("no JSON list", kind)
    return given


def _parsed(answer: str, kind: str) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        raise _unfit(f"no JSON: {answer[:80]!r}", kind) from None


def _refuse_twice(items: Iterable[Any], kind: str) -> None:
    [(item, count)] = Counter(items).most_common(1) or [(None, 0)]
    if count > 1:
        raise _unfit(f"given twice: {item!r}", kind)


def _unfit(what: str, kind: str) -> InputError:
    return InputError(f"no answer of kind {kind!r}: {what}", do=_FORMS[kind])
