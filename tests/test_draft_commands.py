"""label draft, order and pairs from the command line. Run: pytest tests/test_draft_commands.py"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest

from burnish.chat import render_prompt
from burnish.cli.drafts import COMMANDS
from burnish.cli.main import burnish
from burnish.errors import UserError
from burnish.label.queue import next_item, submit
from burnish.nn.generate import Sampling, generate
from burnish.nn.models import load_model
from burnish.nn.score import score_examples
from burnish.project import require_project
from burnish.serve.serve import ServeConfig, serving
from burnish.store import open_store
from burnish.store.drafts import Draft, read_drafts
from burnish.store.examples import read_examples
from burnish.tasks import Task
from burnish.types import Annotation, Example
from tiny import tiny_base

ROWS = [{"messages": [{"role": "user", "content": f"What is {n} and {n}?"}]} for n in range(6)]
ROWS += [{"prompt": f"Is {n} even?", "completion": "yes"} for n in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run(burnish, "init", ".")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:6]))
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[6:]))
    run(burnish, "collect", "rows.jsonl", "pairs.jsonl")
    return tmp_path


def run(command: click.Command, *arguments: str) -> None:
    command.main(args=list(arguments), standalone_mode=False)


def label(name: str, *arguments: str) -> None:
    [command] = [command for command in COMMANDS if command.name == name]
    run(command, *arguments)


def stored() -> tuple[list[Example], list[Draft]]:
    store = open_store(require_project().store_url)
    with store.reading() as connection:
        examples = list(read_examples(connection))
        drafts = read_drafts(connection, "answer", [example.id for example in examples])
    store.close()
    return examples, [draft for of_one in drafts.values() for draft in of_one]


@pytest.mark.parametrize("flags", [[], ["--chat"]])
def test_a_checkpoint_drafts_as_it_generates(flags: list[str], project: Path, model: Path) -> None:
    loaded = load_model(str(model))
    for _ in range(2):
        label("draft", "--model", str(model), "--max-tokens", "9", *flags)
    examples, drafts = stored()
    conversations = [e.conversation.as_chat() if flags else e.conversation for e in examples]
    prompts = [render_prompt(conversation, loaded.template) for conversation in conversations]
    completions = generate(loaded, prompts, Sampling(max_tokens=9))
    texts = [completion.text.replace("\0", "") for completion in completions]
    expected = {e.id: text for e, text in zip(examples, texts, strict=True) if text.strip()}
    assert {draft.example_id: draft.text for draft in drafts} == expected
    assert {draft.model for draft in drafts} == {loaded.identity}


def test_other_temperatures_and_seeds_are_other_drafts(project: Path, model: Path) -> None:
    for seed in ("0", "1"):
        label("draft", "--model", str(model), "--temperature", "1", "--seed", seed, "--limit", "2")
    _, drafts = stored()
    name = load_model(str(model)).identity
    assert sorted(draft.model for draft in drafts) == [
        f"{name} (temperature 1, seed {seed})" for seed in (0, 0, 1, 1)
    ]
    assert len({draft.text for draft in drafts}) > 2


def test_an_endpoint_drafts_as_the_checkpoint_behind_it(
    project: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    feedback = project / "feedback.jsonl"
    settings: dict[str, Any] = {"port": 0, "api_key": "secret", "feedback": feedback}
    label("draft", "--model", str(model), "--max-tokens", "9", "--chat")
    with serving(ServeConfig(str(model), **settings)) as (url, _):
        asked = ("--endpoint", f"{url}/v1", "--model", "tiny", "--api-key-env", "MY_KEY")
        label("draft", *asked, "--max-tokens", "9")
    _, drafts = stored()
    own, served = (
        {d.example_id: d.text for d in drafts if (d.model == "tiny") == is_served}
        for is_served in (False, True)
    )
    assert own.keys() == served.keys()
    # Rows are batched otherwise, and bf16 breaks ties of a random model otherwise.
    assert sum(own[id_] == served[id_] for id_ in own) >= 5


@pytest.mark.parametrize("by", ["loss", "uncertainty"])
def test_the_queue_follows_the_models_scores(by: str, project: Path, model: Path) -> None:
    label("order", "--by", by, "--model", str(model))
    examples, _ = stored()
    scores = score_examples(load_model(str(model)), [e.conversation for e in examples])
    values = [getattr(score, by) for score in scores]
    # Those without a value stay in order of arrival, behind the others.
    expected = sorted(
        range(len(examples)), key=lambda n: (values[n] is None, -(values[n] or 0.0), n)
    )
    assert served([example.id for example in examples]) == expected


def served(ids: list[str]) -> list[int]:
    """Which examples one person is asked, one after another."""
    task, now = Task(), datetime.now(UTC)
    store = open_store(require_project().store_url)
    asked = []
    while (item := next_item(store, task, "ann", now=now)) is not None:
        asked.append(ids.index(item.example.id))
        annotation = Annotation(item.example.id, task.name, "a", "ann", item.example.id)
        submit(store, task, annotation, now=now)
    store.close()
    return asked


def test_orders_that_need_no_model(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for by in ("diversity", "disagreement", "arrival"):
        label("order", "--by", by)
    output = capsys.readouterr().out
    assert "10 examples ordered" in output
    assert "0 examples with two opinions" in output
    examples, _ = stored()
    assert served([example.id for example in examples]) == list(range(10))


def test_pairs_are_written(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label("pairs", "--out", "out.jsonl")
    assert (project / "out.jsonl").read_text() == ""
    assert "0 preference pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["order", "--by", "loss"], "needs --model"),
        (["order", "--by", "arrival", "--model", "starter"], "no use for --model"),
        (["draft", "--model", "m", "--endpoint", "nowhere"], "no endpoint"),
        (
            ["draft", "--model", "m", "--endpoint", "http://x/v1", "--api-key-env", "NO_SUCH_KEY"],
            "NO_SUCH_KEY is not set",
        ),
        (["draft", "--model", "m", "--task", "other"], "no task 'other'"),
        (["draft", "--model", "no-such-model"], "no such base"),
    ],
)
def test_a_mistake_is_one_clear_message(arguments: list[str], message: str, project: Path) -> None:
    with pytest.raises(UserError, match=message):
        label(*arguments)
