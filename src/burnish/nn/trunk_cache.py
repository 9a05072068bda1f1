"""Frozen layers run once: the hidden states they give are kept on disk, and runs start above them.

Legend: k blocks of the trunk, T tokens of a forest, C hidden size.

The trunk's output is computed once, before step 1; every epoch of this run, and of every later run
on the same trunk and rows, starts at block k (after AutoFreeze, arXiv 2102.01386). Neither forward
nor backward enters the trunk any more.

    estimate = estimate_trunk(model, rows, limit=20e9, epochs=3)
    with trunk_cache(model, rows, estimate):    # fills the cache if it has to
        ...                                     # `step.forest_loss` as ever

A forest of other rows (validation, say) runs through the whole model there as anywhere.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from burnish.hashing import content_hash
from burnish.nn.forest import Forest, plant
from burnish.nn.models import LoadedModel
from burnish.nn.rows import Array, Rows
from burnish.nn.step import hidden_states
from burnish.nn.techniques import decoder_blocks
from burnish.nn.trunk import tensor_bytes, trunk_depth, trunk_hash, why_no_trunk
from burnish.nn.trunk_store import (
    HIDDEN,
    SLOT_OF,
    Layout,
    entry_lock,
    filling,
    is_whole,
    lay_out,
    make_room,
    no_room,
    read_along,
    trunk_folder,
)
from burnish.progress import progress_bar

# Computed tokens of a forest while the cache is filled. A constant: how a forest is cut may change
# the last bit of its hidden states, and a cache filled again must hold the same.
_FILL_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class TrunkEstimate:
    """What a trunk cache is or would be, known before anything is written."""

    depth: int
    """k, 0 where the run has no trunk."""
    blocks: int
    """All blocks of the decoder."""
    folder: Path
    """Where it is or would be kept."""
    limit: int
    """Bytes that all entries together may take."""
    slots: int = 0
    """Hidden states to keep: distinct tokens in their contexts."""
    bytes: int = 0
    """To be written; 0 where an earlier run has filled it already."""
    refusal: str | None = None
    """Why the run goes without."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Hashes of trunk and rows, and the base as the user named it."""
    layout: Layout | None = field(default=None, repr=False)
    """Where each hidden state goes; None where nothing is to be filled."""
    output: Any = field(default=None, repr=False)
    """What block k - 1 gives for one row: the form and type of all it gives."""

    @property
    def slot_bytes(self) -> int:
        """Bytes of one hidden state."""
        state = _state(self.output)
        return int(state.shape[-1] * state.itemsize)

    def __str__(self) -> str:
        """A line for the preflight table."""
        if self.refusal is not None:
            return f"no: {self.refusal}"
        size = f"{self.slots * self.slot_bytes / 1e9:,.2f} GB in {self.folder.parent}"
        when = "to be filled before step 1" if self.bytes else "filled by an earlier run"
        return f"the lower {self.depth} of {self.blocks} blocks run once: {size}, {when}"


def _rows_hash(rows: Rows) -> str:
    """Content hash of the rows' tokens; loss weights do not change a hidden state."""
    digest = hashlib.sha256(rows.offsets.data)
    digest.update(rows.ids.data)
    rows.release()
    return digest.hexdigest()[:32]


def estimate_trunk(
    model: LoadedModel, rows: Rows, *, limit: float, epochs: float, order: Array | None = None
) -> TrunkEstimate:
    """What a cache for this run would take, or why there is none; writes nothing.

    Args:
        model: as it will be trained, technique applied.
        rows: all rows of the run.
        limit: bytes that all entries together may take.
        epochs: passes over the rows; a single one is no reason to fill a cache, only to read one.
        order: the rows by prefix, where that is known already: see `grouping.PrefixOrder`.
    """
    none = TrunkEstimate(0, len(decoder_blocks(model)), trunk_folder(), int(limit))
    why = why_no_trunk(model)
    if why is not None:
        return replace(none, refusal=why)
    depth = trunk_depth(model)
    output = _probe(model, depth, rows)
    if output is None:
        return replace(none, refusal=f"the blocks of {model.origin} hand on more than a state")
    facts = {"trunk": trunk_hash(model, depth), "rows": _rows_hash(rows)}
    found = replace(none, depth=depth, output=output, facts={**facts, "base": model.origin})
    found = replace(found, folder=trunk_folder() / content_hash(facts))
    if is_whole(found.folder):
        return replace(found, slots=(found.folder / HIDDEN).stat().st_size // found.slot_bytes)
    if epochs <= 1:
        return replace(found, refusal="a single pass over the examples gains nothing from it")
    layout = lay_out(rows, order)
    found = replace(found, slots=layout.slots, layout=layout)
    needed = found.slots * found.slot_bytes + 8 * len(rows.ids)
    return replace(found, bytes=needed, refusal=no_room(found.folder, needed, int(limit)))


@contextmanager
def trunk_cache(
    model: LoadedModel, rows: Rows, estimate: TrunkEstimate
) -> Iterator[TrunkCache | None]:
    """Run the model from the cache inside the block, filling it first if it has to be.

    Filling goes on where a killed run left off. Yields None, and changes nothing, where
    `estimate.refusal` says why there is no cache.

    Raises:
        ResourceError: the disk is full.
    """
    if estimate.refusal is not None:
        yield None
        return
    with entry_lock(estimate.folder) as lock:
        if not is_whole(estimate.folder):
            _fill(model, rows, estimate)
        trunk = TrunkCache(rows, estimate)
        read_along(lock)
        with trunk.running(model):
            yield trunk


class TrunkCache:
    """A whole entry of the cache, mapped into memory, for the rows it was filled from."""

    def __init__(self, rows: Rows, estimate: TrunkEstimate) -> None:
        self.rows, self.depth, self.output = rows, estimate.depth, estimate.output
        self._hidden, self._mapping = _mapped(estimate.folder / HIDDEN)
        self._hidden = self._hidden.reshape(-1, estimate.slot_bytes)
        self._slot_of = _mapped(estimate.folder / SLOT_OF)[0].view(np.int64)

    def hidden(self, forest: Forest) -> torch.Tensor | None:
        """What block k is given for a forest, (1, T, C), or None if its rows are not these."""
        slots = self._slots(forest)
        if slots is None:
            return None
        state = _state(self.output)
        hidden = torch.empty(len(slots), state.shape[-1], dtype=state.dtype)
        # One memcpy a token, 0.2 ms for 1,600 tokens of 512 bytes. mode="raise" would copy twice.
        np.take(self._hidden, slots, axis=0, out=tensor_bytes(hidden), mode="clip")
        # Pages stay in the system's cache, but would count as memory of this process.
        self._mapping.madvise(mmap.MADV_DONTNEED)
        return hidden[None].to(state.device)

    def _slots(self, forest: Forest) -> Array | None:
        """The slot of each token of the forest, (T,)."""
        slots, ids = np.zeros(len(forest.ids), np.int64), forest.ids.numpy()
        rows = np.searchsorted(self.rows.offsets, forest.starts)
        for leaf, start, row in zip(forest.leaves, forest.starts, rows.tolist(), strict=True):
            tokens = _tokens(forest, leaf)
            end = start + len(tokens)
            # A forest of other rows has other tokens there, or ends elsewhere.
            is_ours = start >= 0 and self.rows.offsets[row : row + 2].tolist() == [start, end]
            if not is_ours or not np.array_equal(self.rows.ids[start:end], ids[tokens]):
                return None
            slots[tokens] = self._slot_of[start:end]
        return slots

    @contextmanager
    def running(self, model: LoadedModel) -> Iterator[None]:
        """Have the trunk's blocks give what is cached instead of computing it.

        The body keeps its list of blocks, since some architectures look up what a block is by its
        place in it. Forests of other rows, and calls without one, go through the blocks as ever.
        """
        last: list[tuple[Forest | None, torch.Tensor | None]] = [(None, None)]

        def stand_in(block: Any) -> Callable[..., Any]:
            compute = block.forward

            def forward(*args: Any, **kwargs: Any) -> Any:
                forest = kwargs.get("forest")
                if forest is not last[0][0]:  # looked up once for all blocks of the trunk
                    last[0] = forest, None if forest is None else self.hidden(forest)
                hidden = last[0][1]
                if hidden is None:
                    return compute(*args, **kwargs)
                return hidden if isinstance(self.output, torch.Tensor) else (hidden, None)

            return forward

        blocks = decoder_blocks(model)[: self.depth]
        with _replaced(blocks, [stand_in(block) for block in blocks]):
            yield


def _fill(model: LoadedModel, rows: Rows, estimate: TrunkEstimate) -> None:
    """Run all rows through the trunk, those that begin alike together, and keep what it gives."""
    folder, layout = estimate.folder, estimate.layout or lay_out(rows)
    make_room(folder, estimate.bytes, estimate.limit)
    with filling(folder, rows, layout, estimate.facts, estimate.slot_bytes) as entry:
        bar_of_slots = progress_bar(
            "filling the trunk cache", unit="token", total=layout.slots, initial=entry.slots_done
        )
        with bar_of_slots as bar:
            for first, end in layout.batches(entry.rows_done, _FILL_TOKENS):
                # Rows that own no slot are duplicates.
                places = first + np.flatnonzero(
                    layout.shared[first:end] < layout.lengths[first:end]
                )
                if not len(places):
                    continue
                forest = plant([rows[n] for n in layout.order[places].tolist()])
                pairs = zip(forest.leaves, layout.shared[places].tolist(), strict=True)
                own = np.concatenate([_tokens(forest, leaf)[shared:] for leaf, shared in pairs])
                hidden = _trunk_output(model, estimate.depth, forest)
                entry.append(tensor_bytes(hidden[torch.from_numpy(own).to(hidden.device)]), end)
                bar.update(len(own))
    rows.release()


@torch.no_grad()  # type: ignore[untyped-decorator]
def _trunk_output(model: LoadedModel, depth: int, forest: Forest) -> torch.Tensor:
    """Run only the trunk: the hidden states it gives for a forest, (T, C)."""
    blocks = decoder_blocks(model)
    with _outputs(blocks[depth - 1]) as outputs:
        above = blocks[depth:]
        with _replaced(above, [lambda *_, **__: outputs[0]] * len(above)):
            hidden_states(model, forest)
    return _state(outputs[0])[0]


@torch.no_grad()  # type: ignore[untyped-decorator]
def _probe(model: LoadedModel, depth: int, rows: Rows) -> Any:
    """What block k - 1 gives for the shortest row; None if the blocks above need more than that."""
    forest = plant([rows[int(rows.lengths.argmin())]])
    trunk = decoder_blocks(model)[:depth]
    with _outputs(trunk[-1]) as outputs:
        expected = hidden_states(model, forest)
    output = outputs[0]
    if not isinstance(output, torch.Tensor) and any(part is not None for part in output[1:]):
        return None
    try:
        with _replaced(trunk, [lambda *_, **__: output] * depth):
            found = hidden_states(model, forest)
    except Exception:
        return None  # such as a KeyError: what an upper block looks up, a lower one had to leave
    return output if (found - expected).norm() <= 1e-3 * expected.norm() else None


@contextmanager
def _outputs(block: Any) -> Iterator[list[Any]]:
    """What a block gives, collected."""
    outputs: list[Any] = []
    hook = block.register_forward_hook(lambda _module, _given, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()


@contextmanager
def _replaced(blocks: Sequence[Any], forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Give blocks another `forward` for a while."""
    with ExitStack() as stack:
        for block, forward in zip(blocks, forwards, strict=True):
            before = block.__dict__.get("forward")
            block.forward = forward
            stack.callback(_restore, block, before)
        yield


def _restore(block: Any, forward: Callable[..., Any] | None) -> None:
    if forward is None:
        del block.forward
    else:
        block.forward = forward


def _state(output: Any) -> torch.Tensor:
    """The hidden states in what a block gives: some give a tuple."""
    state: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return state


def _tokens(forest: Forest, leaf: int) -> Array:
    """Where the tokens of the example that ends in segment `leaf` stand in the forest."""
    path = [forest.segments[n] for n in forest.path(leaf)]
    return np.concatenate([np.arange(segment.start, segment.end) for segment in path])


def _mapped(path: Path) -> tuple[Array, mmap.mmap]:
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapping, np.uint8), mapping
