"""Rendered examples as flat arrays on disk, mapped into memory.

    FOLDER/
      ids        int32, the token ids of all examples, one after another
      weights    float32, the loss weight of each id as a target
      offsets    int64, (examples + 1,): example n is tokens offsets[n] to offsets[n + 1]
      facts.json what the rows are made from (`key`) and what was counted while they were made

The folder appears whole or not at all, so a killed run never takes half of it for all of it, and a
run that goes on does not tokenise again.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np

from burnish.chat import Rendered
from burnish.files import replaced_folder

Array = np.ndarray[Any, Any]

_FACTS_FILE = "facts.json"


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One rendered example as views of the flat arrays."""

    ids: Array
    """Token ids, (T,) int32."""
    weights: Array
    """Loss weight of each id as a target, (T,) float32; the first is always 0."""
    start: int
    """Where its tokens begin in the flat arrays."""


@dataclass(frozen=True, eq=False)
class Rows(Sequence[TokenRow]):
    """All rendered examples of a run."""

    ids: Array
    """(tokens,) int32."""
    weights: Array
    """(tokens,) float32."""
    offsets: Array
    """(examples + 1,) int64."""
    mappings: tuple[mmap.mmap, ...] = ()
    """The files behind the arrays; none for rows in memory."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, n: int) -> TokenRow:  # type: ignore[override]  # slices are not asked for
        if not 0 <= n < len(self):
            raise IndexError(n)
        start, end = int(self.offsets[n]), int(self.offsets[n + 1])
        return TokenRow(self.ids[start:end], self.weights[start:end], start)

    @cached_property
    def lengths(self) -> Array:
        """Tokens of each example, (examples,) int64."""
        return np.diff(self.offsets)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the token ids and where each example begins; not of the weights."""
        digest = hashlib.sha256(self.ids.data)
        digest.update(self.offsets.data)
        return digest.hexdigest()

    def release(self) -> None:
        """Give back the memory of pages that were read; they are read again when needed."""
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            for mapping in self.mappings:
                mapping.madvise(mmap.MADV_DONTNEED)

    @classmethod
    def of(cls, examples: Iterable[Rendered | TokenRow]) -> Rows:
        """The same in memory, from examples at hand."""
        ids, weights, lengths = [np.empty(0, np.int32)], [np.empty(0, np.float32)], [0]
        for row in examples:
            ids.append(np.asarray(row.ids, np.int32))
            weights.append(np.asarray(row.weights, np.float32))
            lengths.append(len(row.ids))
        return cls(np.concatenate(ids), np.concatenate(weights), np.cumsum(lengths, dtype=np.int64))


class RowsWriter:
    """Appends examples to the two flat files; holds one number per example in memory."""

    def __init__(self, ids: IO[bytes], weights: IO[bytes]) -> None:
        self._ids, self._weights = ids, weights
        self.offsets = array("q", [0])

    def add(self, ids: Array, weights: Array) -> None:
        """Append one example: ids int32 and weights float32, both (T,)."""
        assert len(ids) == len(weights) > 0
        self._ids.write(ids.tobytes())
        self._weights.write(weights.tobytes())
        self.offsets.append(self.offsets[-1] + len(ids))


def open_or_write_rows(
    folder: Path, key: str, write: Callable[[RowsWriter], dict[str, Any]]
) -> tuple[Rows, dict[str, Any]]:
    """Map the rows in `folder`; if they are not those of `key`, have `write` make them first.

    Args:
        folder: where the rows are or will be.
        key: hash of everything the rows are made from.
        write: adds every example to the writer and returns facts to keep beside them, as JSON.

    Returns:
        The rows and the facts.

    Raises:
        ResourceError: the disk is full; nothing half-written is left.
    """
    facts = _read_facts(folder)
    if facts is None or facts["key"] != key:
        with replaced_folder(folder) as temporary:
            with (
                (temporary / "ids").open("wb") as ids,
                (temporary / "weights").open("wb") as weights,
            ):
                writer = RowsWriter(ids, weights)
                facts = {"key": key, "made": write(writer)}
            (temporary / "offsets").write_bytes(writer.offsets.tobytes())
            (temporary / _FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")
            _sync(temporary)
    return _map(folder), facts["made"]


def _read_facts(folder: Path) -> dict[str, Any] | None:
    path = folder / _FACTS_FILE
    if not path.exists():
        return None
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def _map(folder: Path) -> Rows:
    offsets = np.fromfile(folder / "offsets", np.int64)
    if offsets[-1] == 0:  # an empty file cannot be mapped
        return Rows(np.empty(0, np.int32), np.empty(0, np.float32), offsets)
    ids, weights = _map_file(folder / "ids"), _map_file(folder / "weights")
    rows = Rows(
        np.frombuffer(ids, np.int32), np.frombuffer(weights, np.float32), offsets, (ids, weights)
    )
    assert len(rows.ids) == len(rows.weights) == offsets[-1], folder
    return rows


def _map_file(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _sync(folder: Path) -> None:
    """Have the files on the disk before the folder gets its name, power cuts included."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
