"""Examples with equal keys, found by sorting 16-byte hashes: 32 bytes an example, no texts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class Clusters:
    """Collects (key, example id), both of 32 hex digits; then gives the groups of equal keys."""

    def __init__(self) -> None:
        self._keys, self._ids = bytearray(), bytearray()

    def add(self, key: str, example_id: str) -> None:
        """Note one example."""
        self._keys += bytes.fromhex(key)
        self._ids += bytes.fromhex(example_id)

    def groups(self) -> Iterator[tuple[str, ...]]:
        """The ids of each group of two or more, within a group in the order they were added."""
        # Bytes of one fixed length compare as S16 does, trailing zeros and all.
        keys = np.frombuffer(self._keys, dtype="S16")
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(keys) else order
        sizes = np.diff(np.r_[starts, len(keys)])
        large = sizes > 1
        for start, size in zip(starts[large], sizes[large], strict=True):
            yield tuple(self._id(int(index)) for index in order[start : start + size])

    def _id(self, index: int) -> str:
        return self._ids[16 * index : 16 * index + 16].hex()
