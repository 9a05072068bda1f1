"""Commands around drafts: label draft, order, pairs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from burnish.cli.settings import Number, opened_project, resolve_reference
from burnish.console import print_facts, reasons
from burnish.errors import ConfigError, UserError
from burnish.label.destination import check_destination, is_device
from burnish.label.drafts import Writer, make_drafts
from burnish.label.endpoint import Endpoint, endpoint_writer
from burnish.label.model_order import Score, order_by_model
from burnish.label.order import order_by_arrival, order_by_disagreement, order_by_diversity
from burnish.label.preferences import export_preferences
from burnish.tasks import find_task
from burnish.types import Conversation

if TYPE_CHECKING:
    from burnish.nn.generate import Sampling
    from burnish.nn.models import LoadedModel

_TASK = click.option("--task", "task_name", help="The task's name, where there are several.")
_AS_CHAT = click.option(
    "--chat",
    "as_chat",
    is_flag=True,
    help="Render prompt/completion rows with the chat template, like `tune --set template=NAME`.",
)
_BY_MODEL = ("loss", "uncertainty")
_ORDERS = ("arrival", *_BY_MODEL, "disagreement", "diversity")
_ACTOR = "order"


@click.command()
@click.option("--model", required=True, help="A base or checkpoint; the endpoint's name for it.")
@click.option("--endpoint", metavar="URL", help="Ask an OpenAI-compatible server, URL up to /v1.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable with the server's key.")
@_TASK
@click.option("--limit", type=click.IntRange(1), help="Draft for so many examples at most.")
@click.option(
    "--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="Longest draft."
)
@click.option(
    "--temperature",
    type=Number(0, 2),
    default=0.0,
    show_default=True,
    help="0 is greedy.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="For temperatures above 0.")
@_AS_CHAT
def draft(
    model: str,
    endpoint: str | None,
    api_key_env: str | None,
    task_name: str | None,
    limit: int | None,
    max_tokens: int,
    temperature: float,
    seed: int,
    as_chat: bool,
) -> None:
    """Have a model propose answers, which people then edit, choose from or rank.

    Examples that want an answer get one draft of each model, temperature and seed, in the order
    people will get them. Stopped, the same command goes on where it was.
    """
    with opened_project() as (project, store):
        task = find_task(project, task_name)
        if endpoint is not None:
            key = _api_key(api_key_env)
            asked = Endpoint(endpoint, model, key, max_tokens, temperature, seed)
            name, write = model, endpoint_writer(asked, _say_wait)
        else:
            loaded = _load(model)
            from burnish.nn.generate import Sampling

            sampling = Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed)
            name, write = loaded.identity, model_writer(loaded, sampling, as_chat=as_chat)
        if temperature:
            name += f" (temperature {temperature:g}, seed {seed})"
        result = make_drafts(store, task, write, name, now=datetime.now(UTC), limit=limit)
    facts = {"drafts": f"{result.added:,} added"}
    if result.refused:
        facts["refused"] = reasons(result.refused)
    print_facts(name, facts)
    if result.refused and endpoint is None and not as_chat:
        click.echo("→ --chat asks for rows that are raw prompts in the model's chat template")
    click.echo("→ burnish studio, or burnish label order --by disagreement")


@click.command()
@click.option("--by", type=click.Choice(_ORDERS), required=True, help="What puts examples first.")
@click.option("--model", help="For loss and uncertainty: a base or checkpoint.")
@_TASK
@_AS_CHAT
def order(by: str, model: str | None, task_name: str | None, as_chat: bool) -> None:
    """Choose which examples people get first.

    loss: those whose own answer the model finds least likely. uncertainty: those the model is least
    sure how to answer. disagreement: those that drafts and people answer most differently.
    diversity: one of each group of alike prompts, then a second of each. arrival: as collected.
    """
    if (by in _BY_MODEL) != (model is not None):
        raise ConfigError(
            f"--by {by} {'needs' if by in _BY_MODEL else 'has no use for'} --model",
            do=f"--by {' or '.join(_BY_MODEL)} --model CHECKPOINT",
        )
    with opened_project() as (project, store):
        task = find_task(project, task_name)
        match by:
            case "arrival":
                order_by_arrival(store, task, _ACTOR)
                click.echo("examples come in the order they were collected")
            case "disagreement":
                count = order_by_disagreement(store, task, _ACTOR)
                click.echo(f"{count:,} examples with two opinions or more come first")
            case "diversity":
                count = order_by_diversity(store, task, _ACTOR)
                click.echo(f"{count:,} examples ordered")
            case _:
                assert model is not None
                loaded = _load(model)
                score = model_score(loaded, by, max_length=task.max_length, as_chat=as_chat)
                result = order_by_model(store, task, score, _ACTOR)
                facts = {"ordered": f"{result.ordered:,} examples, the highest {by} first"}
                if result.unscored:
                    facts["unscored"] = reasons(result.unscored)
                print_facts(loaded.identity, facts)


@click.command()
@click.option(
    "--out", "out_", required=True, type=click.Path(path_type=Path), help="JSONL file to write."
)
@_TASK
def pairs(out_: Path, task_name: str | None) -> None:
    """Write preference pairs for DPO: edited drafts over drafts, and who stands higher in ranks."""
    with opened_project() as (project, store):
        check_destination(project, store, out_)
        count = export_preferences(store, find_task(project, task_name), out_)
    click.echo(f"{count:,} preference pairs in {out_}", err=is_device(out_))


def model_writer(loaded: LoadedModel, sampling: Sampling, *, as_chat: bool) -> Writer:
    """A Burnish model as a writer of drafts."""
    from burnish.chat import render_prompt
    from burnish.nn.decoding import answer_room
    from burnish.nn.generate import generate

    def write(conversations: Sequence[Conversation]) -> list[str | UserError]:
        answers: dict[int, str | UserError] = {}
        prompts: dict[int, list[int]] = {}
        for n, conversation in enumerate(_in_form(conversations, as_chat=as_chat)):
            try:
                prompt = render_prompt(conversation, loaded.template)
                answer_room(loaded, prompt)
                prompts[n] = prompt
            except UserError as error:
                answers[n] = error
        completions = generate(loaded, list(prompts.values()), sampling)
        answers |= {n: c.text for n, c in zip(prompts, completions, strict=True)}
        return [answers[n] for n in range(len(conversations))]

    return write


def model_score(loaded: LoadedModel, by: str, *, max_length: int, as_chat: bool) -> Score:
    """A Burnish model's `loss` or `uncertainty` as a score to order by."""
    from burnish.nn.score import score_examples

    def score(conversations: Sequence[Conversation]) -> list[float | UserError | None]:
        scores = score_examples(
            loaded, _in_form(conversations, as_chat=as_chat), max_length=max_length
        )
        return [s if isinstance(s, UserError) else getattr(s, by) for s in scores]

    return score


def _load(name: str) -> LoadedModel:
    """Open a base or checkpoint; a misspelt name is refused before torch is imported, in 7 s."""
    from burnish.nn.bases import resolve_model

    reference = resolve_reference(name)
    resolve_model(reference)
    from burnish.nn.models import load_model

    return load_model(reference)


def _in_form(conversations: Sequence[Conversation], *, as_chat: bool) -> list[Conversation]:
    """Raw prompts, alone or with an answer, as chats where asked for; plain texts stay raw."""
    if not as_chat:
        return list(conversations)
    prompted = [any(m.role == "user" for m in c.messages) for c in conversations]
    return [
        Conversation(c.messages, c.tools) if has_prompt else c
        for c, has_prompt in zip(conversations, prompted, strict=True)
    ]


def _say_wait(fault: str) -> None:
    click.echo(
        f"the endpoint does not answer yet ({fault}); asking again for half a minute", err=True
    )


def _api_key(variable: str | None) -> str | None:
    if variable is not None and not os.environ.get(variable):
        raise ConfigError(f"{variable} is not set", where="--api-key-env")
    return variable and os.environ[variable]


COMMANDS: tuple[click.Command, ...] = (draft, order, pairs)
