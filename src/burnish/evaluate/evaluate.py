"""Compare a candidate with its base on the same items, and write the report."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from burnish import __version__
from burnish.errors import ConfigError, InputError, ProjectError
from burnish.evaluate.answerer import Answerer
from burnish.evaluate.comparison import Rules, compare_slices
from burnish.evaluate.items import Item, positions_by_slice, read_items
from burnish.evaluate.report import REPORT_JSON, paired, write_report
from burnish.evaluate.results import Setup, summarise
from burnish.evaluate.scorers import ChosenScorer, choose_scorer
from burnish.files import replaced_folder
from burnish.hashing import canonical_json, content_hash
from burnish.project import read_manifest, seal_artefact
from burnish.types import Example, Report, Score


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """Settings of `evaluate`."""

    out: Path = Path("report")
    """Folder of the report: report.html, report.json, scores.jsonl and a manifest."""
    score: str = "auto"
    """`exact`, `includes`, `f1`, `numeric`, `refusal`, or `auto` (chosen from the references)."""
    refusal_text: str | None = None
    """What the model says where it must refuse; the scorer `refusal` looks for it."""
    slice_by: tuple[str, ...] = ()
    """Metadata fields to report apart, such as `scope`."""
    max_tokens: int = 256
    """Longest answer, in tokens; the same for both models."""
    alpha: float = 0.05
    """Chance of a false "better" or "worse" that is accepted; intervals have level 1 - alpha."""
    resamples: int = 10_000
    """Resamples of the bootstrap and the permutation test."""
    seed: int = 0
    """Seed of both; answers are decoded greedily and need none."""
    shown: int = 25
    """Wins, and losses, printed on the page; scores.jsonl has all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        faults = []
        if not 0 < self.alpha < 0.5:
            faults.append(f"alpha = {self.alpha!r} must lie between 0 and 0.5")
        if self.resamples < 1000:
            faults.append(f"resamples = {self.resamples!r} must be 1000 or more")
        if self.max_tokens < 1:
            faults.append(f"max_tokens = {self.max_tokens!r} must be 1 or more")
        if self.shown < 0:
            faults.append(f"shown = {self.shown!r} must be 0 or more")
        if faults:
            raise ConfigError("\n    ".join(faults))


def evaluate(
    config: EvaluateConfig,
    examples: Sequence[Example],
    candidate: Answerer,
    base: Answerer,
    *,
    training_prompts: Set[str] | None = None,
    data_id: str | None = None,
) -> Report:
    """Put the same items to both models, score, compare, and write the report to `config.out`.

    Where this very report stands already, it is returned and nobody is asked again.

    Args:
        config: settings.
        examples: held-out items; the final assistant turn of each is its reference.
        candidate: the model in question.
        base: what it is compared with.
        training_prompts: `prompt_fingerprint`s of what the candidate was trained on; None if that
            is not known, and the report then says that leakage was not checked.
        data_id: the snapshot that the items come from, for lineage.

    Raises:
        InputError: no items, one of them twice, or no reference that can be scored.
        ConfigError: an unknown scorer, or a slice of which there is no field.
        ProjectError: `config.out` holds something else, be it another report.
    """
    items = read_items(examples, config.slice_by, training_prompts)
    scorer = choose_scorer(config.score, [i.expected for i in items], config.refusal_text)
    _check_references(items, scorer)
    run = _run(config, items, candidate, base, training_prompts, data_id)
    finished = _finished(config.out, run)
    if finished is not None:
        return finished
    base_scores, base_seconds = _scores(items, base, scorer)
    candidate_scores, candidate_seconds = _scores(items, candidate, scorer)
    b, c = ([score.value for score in scores] for scores in (base_scores, candidate_scores))
    binary = all(value in (0.0, 1.0, None) for value in (*b, *c))
    rules = Rules(config.alpha, config.resamples, config.seed, binary)
    overall, slices = compare_slices(b, c, positions_by_slice(items), rules)
    sources = Counter(example.source for example in examples)
    setup = Setup(scorer, rules, sources, base, candidate, data_id)
    results = summarise(setup, items, overall, slices)
    with replaced_folder(config.out) as folder:
        write_report(folder, results, paired(items, base_scores, candidate_scores), config.shown)
        facts = {
            "headline": results.headline,
            "run": run,
            "base_seconds": base_seconds,
            "candidate_seconds": candidate_seconds,
        }
        report_id = seal_artefact(folder, "report", setup.parents, facts)
    return Report(report_id, config.out, setup.parents, results.to_json())


def _scores(
    items: Sequence[Item], answerer: Answerer, scorer: ChosenScorer
) -> tuple[list[Score], float]:
    """One model's scores, and the seconds it took to answer."""
    started = time.monotonic()
    answers = answerer.answer([item.prompt for item in items])
    seconds = round(time.monotonic() - started, 3)
    assert len(answers) == len(items), f"{len(answers)} answers to {len(items)} items"
    scores = []
    for item, answer in zip(items, answers, strict=True):
        value = None if item.expected is None else scorer.score(answer, item.expected)
        scores.append(Score(item.id, value, answer, item.expected or ""))
    return scores, seconds


def _check_references(items: Sequence[Item], scorer: ChosenScorer) -> None:
    """Refuse before an hour of answering what could not be scored after it."""
    references = [item.expected for item in items if item.expected is not None]
    if all(scorer.score(reference, reference) is None for reference in references):
        raise InputError(
            f"the scorer {scorer.name!r} can use none of the {len(references)} references, "
            f"such as {references[0][:80]!r}",
            do="choose another scorer with --score, or mend the references",
        )


def _run(
    config: EvaluateConfig,
    items: Sequence[Item],
    candidate: Answerer,
    base: Answerer,
    training_prompts: Set[str] | None,
    data_id: str | None,
) -> dict[str, Any]:
    """What makes two evaluations the same, as plain JSON."""
    settings = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "out"}
    trained_on = None if training_prompts is None else content_hash(sorted(training_prompts))
    run = {
        **settings,
        "candidate": [candidate.name, candidate.identity, candidate.settings],
        "base": [base.name, base.identity, base.settings],
        "items": content_hash([item.id for item in items]),
        "data": data_id,
        "training_prompts": trained_on,
        "burnish_version": __version__,
    }
    # A name from the command line may hold bytes that are no UTF-8; a manifest may not.
    plain: dict[str, Any] = json.loads(canonical_json(run).encode("utf-8", "replace"))
    return plain


def _finished(out: Path, run: dict[str, Any]) -> Report | None:
    """The report at `out` if it is this run's; None if `out` is free and can be written."""
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ProjectError("cannot be written to", where=str(parent), do="give another --out")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    do = "choose another place with --out; nothing is ever overwritten"
    if not (out / REPORT_JSON).is_file():
        raise ProjectError("is there already and is no report", where=str(out), do=do)
    manifest = read_manifest(out)
    then = manifest["facts"]["run"]
    differing = sorted(key for key in run.keys() | then.keys() if run.get(key) != then.get(key))
    if differing:
        what = f"holds another report: it differs in {', '.join(differing)}"
        raise ProjectError(what, where=str(out), do=do)
    results = json.loads((out / REPORT_JSON).read_text(encoding="utf-8"))
    return Report(manifest["id"], out, tuple(manifest["parents"]), results)
