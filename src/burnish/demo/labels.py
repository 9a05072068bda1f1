"""Two annotators' labels for the demo's requests.

Ada answers as CLINC150 published it. Ben errs on `BEN_ERRS` of the requests: half of his slips go
to the intent that is easiest to confuse with the right one, half to any other; both are drawn with
a fixed seed. Their disagreements are settled by a reviewer, who again answers as published.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from burnish.files import replaced_file

REFUSAL = "I can only help with banking."
BEN_ERRS = 0.08
SEED = 7

# The pairs an annotator in a hurry mixes up.
CONFUSED = {
    "balance": "bill_balance",
    "bill_balance": "balance",
    "bill_due": "pay_bill",
    "pay_bill": "bill_due",
    "min_payment": "bill_balance",
    "transfer": "pay_bill",
    "transactions": "spending_history",
    "spending_history": "transactions",
    "freeze_account": "account_blocked",
    "account_blocked": "freeze_account",
    "report_fraud": "account_blocked",
    "pin_change": "account_blocked",
    "routing": "transfer",
    "order_checks": "routing",
    "interest_rate": "balance",
}


def answer_of(intent: str) -> str:
    """What the model shall say: the intent's name, or the refusal for what is out of scope."""
    return REFUSAL if intent == "oos" else intent


def write_labels(folder: Path, intents: Mapping[str, str]) -> list[Path]:
    """Write ada.csv and ben.csv for examples given as {example id: published intent}."""
    published = {example: answer_of(intent) for example, intent in intents.items()}
    paths = []
    for annotator, answers in (("ada", published), ("ben", _with_slips(intents))):
        path = folder / f"{annotator}.csv"
        with (
            replaced_file(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(("example_id", "answer", "annotator", "seconds"))
            rng = random.Random(f"{SEED} {annotator}")
            for example, answer in answers.items():
                writer.writerow((example, answer, annotator, round(rng.uniform(2, 9), 1)))
        paths.append(path)
    return paths


def _with_slips(intents: Mapping[str, str]) -> dict[str, str]:
    rng = random.Random(SEED)
    others: Sequence[str] = sorted(set(intents.values()))
    answers = {}
    for example, intent in intents.items():
        said = intent
        if rng.random() < BEN_ERRS:
            wrong = [other for other in others if other != intent]
            near = CONFUSED.get(intent)
            said = near if near is not None and rng.random() < 0.5 else rng.choice(wrong)
        answers[example] = answer_of(said)
    return answers
