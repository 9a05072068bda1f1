"""What an answer is, for each kind of task, and what it does to an example.

    kind          an answer, as text                                    what a snapshot trains on
    write         the answer                                            the answer
    edit          the answer                                            the answer
    choose        one of `choices`                                      the choice
    choose_many   JSON list of choices, in their order; may be []       the list
    rate          a whole number of the scale                           the number
    rank          JSON list of lists of candidates' numbers, best       the best candidate
                  first; those in one list are equally good
    spans         JSON list of {"start", "end", "label"} by start;      the list
                  characters of the last user turn
    dialogue      JSON list of {"role", "content"}: every turn          the turns
    accept        {"verdict": "accept"}, or                             the example as it is;
                  {"verdict": "reject", "reason": "..."}                a rejected one is left out

Answers are kept in a canonical form, so that equal answers are equal texts.
"""

from __future__ import annotations

from burnish.errors import InputError
from burnish.tasks import Task


def checked_answer(answer: str, task: Task) -> str:
    """The answer, without surrounding white space where it is one of `task.choices`.

    Raises:
        InputError: the answer is empty, no Unicode text, or not among the choices.
    """
    if not answer.strip():
        raise InputError("the answer is empty", do="write one, or skip the example")
    checked_text(answer)
    if not task.choices:
        return answer
    if answer.strip() not in task.choices:
        raise InputError(
            f"not among the choices: {answer[:80]!r}",
            do="choose one of the task's `choices` in burnish.toml",
        )
    return answer.strip()


def checked_text(text: str) -> None:
    """Refuse half a surrogate pair: JSON may spell it, but no UTF-8 text can hold it.

    Raises:
        InputError: the text holds one.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("half a Unicode surrogate pair", do="take that character out") from None
