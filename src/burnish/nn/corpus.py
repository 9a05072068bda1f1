"""Plain text as training material: documents, a tokenizer trained on them, arrays of tokens.

Nothing here holds a whole text in memory: documents stream from the files, tokens go to a file that
is mapped into memory afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from burnish.chat import Rendered
from burnish.errors import InputError
from burnish.files import replaced_file
from burnish.hashing import content_hash, file_hash
from burnish.progress import progress
from burnish.records.rows import Reject, read_rows

END_OF_TEXT = "<|endoftext|>"
_TURN_TOKENS = ("<|im_start|>", "<|im_end|>")

# A tokenizer learns nothing new from more text than this, while its word counts grow in memory.
_TOKENIZER_BYTES = 1_000_000_000
_DOCUMENTS_AT_ONCE = 1024

_TRAIN_FILE = "train.tokens"
_HELD_OUT_FILE = "held_out.tokens"
_COUNTS_FILE = "tokens.json"


@dataclass(frozen=True, slots=True)
class Corpus:
    """A text as tokens: `eos document eos document ... eos`, in two parts."""

    train: np.ndarray[Any, Any]
    """(tokens,) uint16 or uint32, mapped from disk."""
    held_out: np.ndarray[Any, Any]
    """Tokens of every n-th document, never trained on."""
    documents: int
    held_out_bytes: int
    """UTF-8 bytes of the held-out documents."""


def documents(paths: Sequence[Path]) -> Iterator[str]:
    """Stream the texts: the `text` of each row; in a .txt file each line that is not blank.

    Raises:
        InputError: a file that cannot be read, a broken row, or one without a text; names the line.
    """
    for path in paths:
        for row in read_rows(path):
            where = f"{path}:{row.line}"
            if isinstance(row, Reject):
                raise InputError(row.reason, where=where, do="mend or remove that row")
            text = row.values.get("text", 0)
            if text is not None and not isinstance(text, str):
                raise InputError(
                    f"no `text` in this row (found: {', '.join(row.values) or 'nothing'})",
                    where=where,
                    do="give the column that holds the text the name `text`",
                )
            if text:
                yield text


def text_identity(paths: Sequence[Path]) -> str:
    """`text-` and a hash of the files' bytes, in the order given."""
    for path in paths:
        read_rows(path)  # says what is wrong with a file that cannot be hashed
    return f"text-{content_hash([file_hash(path) for path in paths])[:16]}"


def train_tokenizer(paths: Sequence[Path], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer (Sennrich et al., arXiv 1508.07909; bytes as in GPT-2).

    Every text has ids, for the 256 bytes are all in the vocabulary. Digits stand alone, so that
    numbers are spelt in one way. Of text beyond 1 GB every n-th document is read.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(t, special=True, normalized=False) for t in (END_OF_TEXT, *_TURN_TOKENS)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    stride = 1 + sum(path.stat().st_size for path in paths) // _TOKENIZER_BYTES
    sample = islice(documents(paths), 0, None, stride)
    tokenizer.train_from_iterator(progress(sample, "train tokenizer", unit="document"), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        extra_special_tokens=list(_TURN_TOKENS),
    )


def tokenise(paths: Sequence[Path], tokenizer: Any, folder: Path, held_out: float) -> Corpus:
    """Write the texts as tokens into `folder` and map them; done before, they are only mapped.

    A `held_out` share of the documents, evenly spaced and the first among them, goes to the part
    that is not trained on.
    """
    if not (folder / _COUNTS_FILE).exists():
        _write_tokens(paths, tokenizer, folder, held_out)
    counts = json.loads((folder / _COUNTS_FILE).read_text(encoding="utf-8"))
    dtype = _dtype(tokenizer)
    return Corpus(
        np.memmap(folder / _TRAIN_FILE, dtype, mode="r"),
        np.memmap(folder / _HELD_OUT_FILE, dtype, mode="r"),
        **counts,
    )


def _write_tokens(paths: Sequence[Path], tokenizer: Any, folder: Path, held_out: float) -> None:
    stride = round(1 / held_out) if held_out else 0
    counts = {"documents": 0, "held_out_bytes": 0}
    texts = iter(progress(documents(paths), "tokenise", unit="document"))
    with (
        replaced_file(folder / _TRAIN_FILE) as train_path,
        replaced_file(folder / _HELD_OUT_FILE) as held_out_path,
        train_path.open("wb") as train,
        held_out_path.open("wb") as held,
    ):
        _append(train, [tokenizer.eos_token_id], tokenizer)
        _append(held, [tokenizer.eos_token_id], tokenizer)
        while batch := list(islice(texts, _DOCUMENTS_AT_ONCE)):
            # A text may spell a special token; split, it stays text.
            rows = tokenizer(batch, add_special_tokens=False, split_special_tokens=True).input_ids
            for text, ids in zip(batch, rows, strict=True):
                is_held_out = stride and counts["documents"] % stride == 0
                counts["documents"] += 1
                counts["held_out_bytes"] += len(text.encode()) if is_held_out else 0
                part = held if is_held_out else train
                _append(part, [*ids, tokenizer.eos_token_id], tokenizer)
    with replaced_file(folder / _COUNTS_FILE) as temporary:  # last: it says the others are whole
        temporary.write_text(json.dumps(counts), encoding="utf-8")


def _append(file: IO[bytes], ids: Sequence[int], tokenizer: Any) -> None:
    file.write(np.asarray(ids, _dtype(tokenizer)).tobytes())


def _dtype(tokenizer: Any) -> type[np.uint16] | type[np.uint32]:
    return np.uint16 if len(tokenizer) <= 2**16 else np.uint32


@dataclass(frozen=True, slots=True)
class Windows(Sequence[Rendered]):
    """An array of tokens cut into windows of `context` tokens.

    Neighbours share one token: the last of a window is the first, unpredicted one of the next, so
    every token but the array's first is predicted exactly once.
    """

    tokens: np.ndarray[Any, Any]
    context: int

    def __len__(self) -> int:
        return -(-max(0, len(self.tokens) - 1) // (self.context - 1))

    def __getitem__(self, n: int) -> Rendered:  # type: ignore[override]  # slices are not asked for
        start = n * (self.context - 1)
        ids = self.tokens[start : start + self.context].tolist()
        return Rendered(ids, [0.0] + [1.0] * (len(ids) - 1), stops=[])
