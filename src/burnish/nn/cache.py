"""Keys and values of sequences that are decoded together and join and leave between tokens.

Legend: R rows, K key/value heads, T tokens of the longest row, D head size.

Rows are aligned at their last token, since one forward pass gives every row its next token in the
same column; what stands before a shorter row's first token is masked. A row's tokens so lie side by
side, and a sliding window counts as if the row were alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

# Columns kept free when a store grows: growing copies it, so it must be rare.
_SPARE_COLUMNS = 128


class RowCache(Cache):
    """A `transformers` cache where a token is written in place and a row comes and goes by itself.

    `DynamicCache` concatenates: each token, and each row that leaves, copies all keys and values.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.layers: list[Any]

    @property
    def rows(self) -> int:
        """R."""
        return self.layers[0].keys.shape[0] if self.layers else 0

    @property
    def length(self) -> int:
        """T."""
        return self.layers[0].keys.shape[2] if self.layers else 0

    @property
    def token_bytes(self) -> int:
        """Bytes of the keys and values of one token in all layers."""
        stores = [x for layer in self.layers for x in (layer.keys, layer.values)]
        return sum(x.shape[1] * x.shape[3] * x.itemsize for x in stores)

    def admit(self, prefilled: Cache, lengths: Sequence[int]) -> None:
        """Append rows: row n of `prefilled` brings its first `lengths[n]` tokens."""
        if not self.layers:
            self.layers = [_RowLayer(layer) for layer in prefilled.layers]
        first, longest = self.rows, max(self.length, *lengths)
        for layer, source in zip(self.layers, prefilled.layers, strict=True):
            layer.look(first + len(lengths), longest)
            for n, length in enumerate(lengths):
                layer.keys[first + n, :, longest - length :] = source.keys[n, :, :length]
                layer.values[first + n, :, longest - length :] = source.values[n, :, :length]

    def evict(self, row: int, longest: int) -> None:
        """Drop a row; the last row takes its place. `longest` is the T of those that stay."""
        last = self.rows - 1
        for layer in self.layers:
            if row < last:
                layer.keys[row] = layer.keys[last]
                layer.values[row] = layer.values[last]
            layer.look(last, longest)


class _RowLayer(DynamicLayer):
    """One layer: `keys` and `values` are windows (R, K, T, D) on larger stores."""

    def __init__(self, like: DynamicLayer) -> None:
        super().__init__()
        self.lazy_initialization(like.keys, like.values)
        self.keys = self.key_store = like.keys[:0, :, :0]
        self.values = self.value_store = like.values[:0, :, :0]
        self.end = 0
        """The column after the window's last; every row's newest token stands before it."""

    def look(self, rows: int, length: int) -> None:
        """Put the window on `rows` rows and the `length` columns that end at `end`."""
        if rows > self.key_store.shape[0] or length > self.end:
            self._grow(rows, length)
        self.keys = self.key_store[:rows, :, self.end - length : self.end]
        self.values = self.value_store[:rows, :, self.end - length : self.end]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add one token to each row, (R, K, 1, D), and return the window with it."""
        rows, _, length, _ = self.keys.shape
        if self.end == self.key_store.shape[2]:
            self._grow(rows, length)
        self.end += 1
        self.look(rows, length + 1)
        self.keys[:, :, -1:] = key_states
        self.values[:, :, -1:] = value_states
        return self.keys, self.values

    def _grow(self, rows: int, length: int) -> None:
        """Move the window to larger stores, its end at column `length`."""
        capacity = self.key_store.shape[0]
        if rows > capacity:
            capacity = max(rows, 2 * capacity)
        self.key_store = _moved(self.keys, capacity, length)
        self.value_store = _moved(self.values, capacity, length)
        self.end = length


def _moved(window: torch.Tensor, rows: int, length: int) -> torch.Tensor:
    """A store for `rows` rows with the window's last column at `length` - 1.

    Unused cells hold zeros: a masked cell weighs 0, and 0 times a NaN left in memory is NaN.
    """
    held, heads, seen, size = window.shape
    store = window.new_zeros(rows, heads, length + _SPARE_COLUMNS, size)
    store[:held, :, length - seen : length] = window
    return store
