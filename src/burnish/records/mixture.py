"""Several sources as one body of training data, each with its share of an epoch.

    [[source]]
    data = "support.jsonl"       # a file, or the folder of a snapshot; from this file's folder on
    weight = 2.0                 # passes over it per epoch; 0.5: half of it, then the other half

    [[source]]
    data = "general/"
    cap = 5000                   # at most so many of its rows per epoch
    loss_weight = 0.5            # multiplied with the loss weight of each of its examples

Instruction tuning is such a mixture with caps: examples in proportion to each source's size, up to
a limit (Raffel et al., arXiv 1910.10683, section 3.5.2; Wei et al., FLAN, arXiv 2109.01652).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from burnish.config import build_config, did_you_mean, read_toml
from burnish.errors import ConfigError
from burnish.hashing import content_hash
from burnish.records.rows import Reject
from burnish.records.stream import ScannedExamples, scan_examples
from burnish.types import Example, Split

_TABLE = "source"


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One `[[source]]` of a mixture."""

    data: str
    """A file or the folder of a snapshot, whose train part is taken."""
    weight: float = 1.0
    """Passes over the source per epoch."""
    cap: int | None = None
    """At most so many of its rows per epoch."""
    loss_weight: float = 1.0
    """Multiplied with the loss weight of each of its examples."""
    format: str | None = None
    """The form of the data when it should not be recognised: messages, alpaca, ..."""

    def __post_init__(self) -> None:
        """Check ranges; all faults at once."""
        faults = []
        if self.weight <= 0:
            faults.append(f"weight = {self.weight}: must be above 0")
        if self.cap is not None and self.cap < 1:
            faults.append(f"cap = {self.cap}: must be at least 1")
        if self.loss_weight <= 0:
            faults.append(f"loss_weight = {self.loss_weight}: must be above 0")
        if faults:
            raise ConfigError("\n    ".join(faults))

    def rows_per_epoch(self, rows: int) -> int:
        """How many of the source's `rows` an epoch takes: weight times rows, at most `cap`."""
        if rows == 0:
            return 0
        wanted = max(1, round(self.weight * rows))
        return wanted if self.cap is None else min(wanted, self.cap)


@dataclass(frozen=True, slots=True)
class Source:
    """One source of a mixture, read once."""

    config: SourceConfig
    examples: ScannedExamples


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a run is trained on."""

    sources: tuple[Source, ...]
    hash: str
    """Of the sources' content and shares; for a single plain source its content hash alone."""

    @property
    def parents(self) -> list[str]:
        """Ids of the data, for an artefact made from it to name."""
        return list(dict.fromkeys(source.examples.id for source in self.sources))

    @property
    def rejects(self) -> list[Reject]:
        """Rows refused while reading, source by source."""
        return [reject for source in self.sources for reject in source.examples.rejects]

    @property
    def all_raw(self) -> bool:
        """Whether no conversation in it asks for a chat template."""
        return all(source.examples.all_raw for source in self.sources)

    @property
    def sample(self) -> Example:
        """The first example."""
        return self.sources[0].examples.records.sample


def read_mixture(
    data: str | Path, *, as_format: str | None = None, split: Split = "train"
) -> Mixture:
    """Open and scan training data: a file, the folder of a snapshot, or a mixture in TOML.

    `as_format` is the form of sources that name none themselves; `split` is the part taken of
    snapshots, a file is taken whole.

    Raises:
        ConfigError: the TOML has unknown, missing or ill-typed keys; all of them in one message.
        InputError: a source that cannot be read.
    """
    path = Path(data)
    is_mixture = path.suffix.lower() == ".toml"
    configs = _read_configs(path) if is_mixture else (SourceConfig(str(data)),)
    sources = tuple(
        Source(c, scan_examples(c.data, as_format=c.format or as_format, split=split))
        for c in configs
    )
    if not is_mixture:
        return Mixture(sources, sources[0].examples.hash)
    identity = [
        {**asdict(source.config), "data": source.examples.hash, "format": None}
        for source in sources
    ]
    return Mixture(sources, content_hash(identity))


def _read_configs(path: Path) -> tuple[SourceConfig, ...]:
    values = read_toml(path)
    faults = [
        f"there is no table {name!r}{did_you_mean(name, [_TABLE])}"
        for name in values
        if name != _TABLE
    ]
    tables = values.get(_TABLE)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        faults.append("a mixture needs at least one [[source]]")
        tables = []
    configs = []
    for number, table in enumerate(tables, 1):
        try:
            config = build_config(SourceConfig, table, where=str(path))
            configs.append(replace(config, data=str(path.parent / config.data)))
        except ConfigError as error:
            faults.append(f"[[source]] {number}: {error.what}")
    if faults:
        raise ConfigError(
            "\n    ".join(faults),
            where=str(path),
            do='mend each line above; a source is [[source]] and below it data = "FILE"',
        )
    return tuple(configs)
