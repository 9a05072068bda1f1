"""Which examples share a prefix, over the whole snapshot, and epochs that keep them near.

Notation: n examples; a block is `MIN_SHARED_TOKENS` tokens; a slot is a place in the sorted order.

Sharing pays only inside a step, so examples that share a prefix must meet there, yet no step may be
one family's alone. An epoch's order is therefore drawn like this:

1. The prefix tree of all examples is cut into families, top-down. A subtree of at most m examples
   (`bundle_examples`) is a family; in a larger one each child that holds two or more is looked into
   the same way, and its single examples are one family together.
2. Each family is shuffled and cut into bundles of m. What is left over of the families is laid end
   to end, the families shuffled, and cut into bundles of m as well.
3. All bundles are shuffled, laid end to end, and cut into steps.

So each example comes exactly once an epoch; which bundles meet in a step, and which m examples of a
large family make a bundle, is drawn anew each epoch, uniformly; the order is a function of the seed
and the epoch alone. What it costs: examples of a bundle are alike, so a step of b examples holds at
least b / m independent draws instead of b. The default m is half a step, and 2 at least. With m = 1
the order is a plain shuffle, and only what everybody shares, or what meets by luck, is shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from burnish.nn.forest import MIN_SHARED_TOKENS
from burnish.nn.rows import Array, Rows
from burnish.progress import progress_bar

# Examples whose blocks are read at once: bounds memory to some 50 MB however large the snapshot is.
_ROWS_AT_ONCE = 65536


@dataclass(frozen=True, eq=False)
class PrefixOrder:
    """The examples sorted so that those that share a prefix are neighbours."""

    order: Array
    """(n,) int64: the example in each slot."""
    shared: Array
    """(n,) int32: whole blocks that a slot shares with the slot before it; the first shares 0."""


def sort_by_prefix(rows: Rows) -> PrefixOrder:
    """Find all shared prefixes of whole blocks: O(shared tokens + n log n), in numpy.

    Level by level: examples that still agree with another are parted by a hash of their next block.
    (A collision of 64-bit hashes could only put strangers side by side; what they really share is
    compared token by token when a batch is planted.)
    """
    order, shared = np.arange(len(rows)), np.zeros(len(rows), np.int32)
    slots = np.arange(len(rows))  # in groups that agree on `depth` blocks, each group in one run
    begins = np.zeros(len(rows), bool)  # whether a slot is the first of its group
    begins[:1] = True
    depth = 0
    with progress_bar("finding shared prefixes", unit="token", total=None) as bar:
        while len(slots):
            groups = np.cumsum(begins)
            examples = order[slots]
            blocks, whole = _hash_blocks(rows, examples, depth)
            by_block = np.lexsort((blocks, groups))
            order[slots] = examples[by_block]
            blocks, whole = blocks[by_block], whole[by_block]
            agree = ~begins & whole & np.roll(whole, 1) & (blocks == np.roll(blocks, 1))
            depth += 1
            shared[slots[agree]] = depth
            still = agree | np.append(agree[1:], False)
            slots, begins = slots[still], ~agree[still]
            bar.update(int(still.sum()) * MIN_SHARED_TOKENS)
    return PrefixOrder(order, shared)


def _hash_blocks(rows: Rows, examples: Array, depth: int) -> tuple[Array, Array]:
    """Hash of block number `depth` of each example, and whether the example has it whole.

    The hash is 0 where it has not, so those that end sort before those that go on.
    """
    first = rows.offsets[examples] + depth * MIN_SHARED_TOKENS
    whole = first + MIN_SHARED_TOKENS <= rows.offsets[examples + 1]
    hashes = np.zeros(len(examples), np.uint64)
    reading = np.flatnonzero(whole)
    reading = reading[np.argsort(first[reading])]  # in the order of the file
    for start in range(0, len(reading), _ROWS_AT_ONCE):
        part = reading[start : start + _ROWS_AT_ONCE]
        tokens = rows.ids[first[part, None] + np.arange(MIN_SHARED_TOKENS)]
        hashes[part] = (tokens.astype(np.uint64) * _MULTIPLIERS).sum(axis=1, dtype=np.uint64)
        rows.release()
    return hashes, whole


# Multilinear hashing modulo 2^64 (Lemire and Kaser, arXiv 1202.4961), by fixed random odd factors.
_MULTIPLIERS = 2 * np.random.default_rng(0).integers(2**63, size=16, dtype=np.uint64) + 1
assert len(_MULTIPLIERS) == MIN_SHARED_TOKENS


def cut_into_families(prefixes: PrefixOrder, bundle_examples: int) -> Array:
    """The family of each example, (n,) int64, counted from 0: step 1 of the order of an epoch."""
    families = np.empty(len(prefixes.order), np.int64)
    count = 0
    slots = np.arange(len(families))  # in subtrees not yet cut
    parents = np.zeros(len(families), np.int64)  # the family of their subtree's single examples
    depth = 0
    while len(slots):
        # Subtrees of `depth` blocks are runs of slots that share so much with the one before.
        begins = prefixes.shared[slots] < depth
        begins[0] = True
        index = np.cumsum(begins) - 1
        sizes = np.bincount(index)
        alone = (sizes == 1) & (depth > 0)
        names = count + 1 + np.arange(len(sizes))
        count += len(sizes)
        settled = (sizes <= bundle_examples)[index]
        found = np.where(alone[index], parents, names[index])
        families[prefixes.order[slots[settled]]] = found[settled]
        slots, parents = slots[~settled], names[index][~settled]
        depth += 1
    return np.unique(families, return_inverse=True)[1]


def shuffle_in_bundles(families: Array, bundle_examples: int, rng: np.random.Generator) -> Array:
    """Steps 2 and 3: a random order of the examples of these `families` (n,), (n,) int64 indices.

    The one bundle that may be smaller stands last, so that where m divides the examples of a step
    no other is cut by the end of a step.
    """
    by_family = np.argsort(families + rng.random(len(families)))
    family = families[by_family]
    sizes = np.bincount(family)
    place = np.arange(len(family)) - (np.cumsum(sizes) - sizes)[family]
    over = place >= (sizes - sizes % bundle_examples)[family]
    shuffled = np.argsort(rng.random(len(sizes))[family[over]], kind="stable")
    in_bundles = np.concatenate([by_family[~over], by_family[over][shuffled]])
    whole = len(in_bundles) // bundle_examples
    bundles = in_bundles[: whole * bundle_examples].reshape(whole, bundle_examples)
    rest = in_bundles[whole * bundle_examples :]
    return np.concatenate([bundles[rng.permutation(whole)].ravel(), rest])


def shared_blocks(prefixes: PrefixOrder, first: Array, last: Array) -> Array:
    """Blocks that the examples in slots `first` and `last` share, first < last: int32.

    The least of `shared` over the slots between, for all pairs at once: range minima over windows
    of 1, 2, 4, ... slots (a sparse table, one row of it at a time).
    """
    found = np.zeros(len(first), np.int32)
    level = np.frexp(last - first)[1] - 1  # the largest power of two within the range
    table = prefixes.shared
    for k in range(int(level.max(initial=-1)) + 1):
        asked = np.flatnonzero(level == k)
        found[asked] = np.minimum(table[first[asked] + 1], table[last[asked] + 1 - 2**k])
        table = np.minimum(table[: -(2**k)], table[2**k :])
    return found
