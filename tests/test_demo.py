"""The whole road, as `burnish demo` takes it, and what it promises.

Run: pytest tests/test_demo.py (about two minutes)
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from burnish.cli import main
from burnish.demo.labels import BEN_ERRS, REFUSAL, answer_of, write_labels
from burnish.label.queue import next_item
from burnish.label.status import label_status
from burnish.project import open_project
from burnish.store import open_store
from burnish.tasks import find_task


def answers(path) -> dict[str, str]:
    rows = path.read_text().splitlines()[1:]
    return {row.split(",")[0]: row.split(",")[1] for row in rows}


def test_bens_slips_are_as_many_as_said_and_the_same_every_time(tmp_path):
    intents = {f"e{n}": ("balance", "transfer", "oos")[n % 3] for n in range(3000)}
    (tmp_path / "again").mkdir()
    ada, ben = write_labels(tmp_path, intents)
    assert [p.read_text() for p in write_labels(tmp_path / "again", intents)] == [
        ada.read_text(),
        ben.read_text(),
    ]
    right = {example: answer_of(intent) for example, intent in intents.items()}
    assert answers(ada) == right
    wrong = sum(answers(ben)[example] != right[example] for example in right)
    assert wrong / len(right) == pytest.approx(BEN_ERRS, abs=0.015)
    assert REFUSAL in answers(ben).values()


@pytest.mark.timeout(1800)
def test_the_demo_keeps_its_promises_and_goes_on_where_it_was(tmp_path, capsys):
    folder = tmp_path / "demo"
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            main(["demo", "--out", str(folder)])
        assert end.value.code == 0
    output = capsys.readouterr().out
    assert "277 disputes" in output
    assert "3,450 known already" in output  # the second time
    report = json.loads((folder / "report" / "report.json").read_text())
    rates = {part["name"]: part["candidate"]["mean"] for part in report["slices"]}
    assert rates["scope = in scope"] >= 0.85
    assert report["verdict"] == "better"
    assert report["clean"] is True
    assert REFUSAL in output.partition("7 serve")[2]
    project = open_project(folder)
    kinds = [record.kind for record in project.artefacts()]
    assert kinds == ["snapshot", "checkpoint", "report"]
    # Some are left for whoever opens the studio.
    store, task = open_store(project.store_url), find_task(project)
    status = label_status(store, task)
    item = next_item(store, task, "visitor", now=datetime.now(UTC))
    store.close()
    assert (status.examples, status.complete, task.kind) == (3470, 3450, "choose")
    assert item is not None
    assert item.example.source == "new_requests.jsonl"
