"""What the search index holds of an example, and what a search asks it for.

    = where is my parcel = it left us on monday =5d41402abc4b2a76 =7d793037a0760186

Words come from every message, in order. `=` alone stands before each message: every example has
one, and no phrase reaches across it. A *fact* is `=` and the hash of a name and a value: the
example's source, and each value in its metadata.

Both databases are given these same tokens, or they would not find the same: SQLite's tokenizers
and PostgreSQL's parser disagree on hyphens, numbers, accents and most scripts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from burnish.hashing import canonical_json, text_hash
from burnish.types import Conversation

MARK = "="
"""The token that every example has, once before each message."""

# PostgreSQL takes a tsvector of up to 1 MiB; the same ends hold for SQLite, so that both find the
# same. What comes after is kept, but not found by a search.
_MAX_CHARACTERS = 100_000
_MAX_FACTS = 1000

# Scripts written without blanks: Thai and Lao, Burmese, Khmer, kana, Han. Each of their characters
# is a word, and a word of them is found as a phrase.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
# PostgreSQL refuses a token of more than 2,046 bytes; a longer run of letters is several.
_MAX_WORD = 64
# Letters and digits.
_WORD = re.compile(rf"[^\W_{_UNSPACED}]{{1,{_MAX_WORD}}}|[{_UNSPACED}]")
# The same for ASCII, which most text is, in a third of the time.
_ASCII = {n: c.lower() if (c := chr(n)).isalnum() else " " for n in range(128)}
# At 1,000,000 examples `a*` took 2.3 s: FTS5 merges the places of every word that begins so. Of 3
# letters it keeps them merged; longer ones are rarer. Kept of 4 too, indexing took half as long
# again.
_SHORTEST_PREFIX = 3
_ACCENT = re.compile(r"[\u0300-\u036f]")

# -"several words"*; a quotation mark that is not closed reaches to the end.
_TERM = re.compile(r'(?P<no>-?)(?:"(?P<phrase>[^"]*)(?:"|$)(?P<prefix>\*?)|(?P<word>[^\s"]+))')


def words(text: str) -> list[str]:
    """The words of a text, blind to case, accents and Unicode's look-alike forms."""
    if text.isascii():
        found = text.translate(_ASCII).split()
        if len(max(found, key=len, default="")) <= _MAX_WORD:
            return found
    plain = _ACCENT.sub("", unicodedata.normalize("NFKD", text))
    return _WORD.findall(unicodedata.normalize("NFC", plain).casefold())


def index_text(conversation: Conversation, source: str, metadata: Mapping[str, Any]) -> str:
    """An example's tokens, in the order the index holds them."""
    tokens: list[str] = []
    left = _MAX_CHARACTERS
    for message in conversation.messages:
        tokens.append(MARK)
        calls = (text for call in message.tool_calls for text in (call.name, call.arguments))
        for text in (message.content, *calls):
            tokens += words(text[:left])
            left -= min(left, len(text))
    tokens.append(source_fact(source))
    tokens += (metadata_fact(*fact) for fact in islice(facts(metadata), _MAX_FACTS))
    return " ".join(tokens)


def source_fact(source: str) -> str:
    """The token of every example from this source."""
    return _fact("source", source)


def metadata_fact(key: str, value: str) -> str:
    """The token of every example that has this fact, as `facts` gives it."""
    return _fact(f"metadata.{key}", value)


def facts(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each value in the metadata as text, with its key.

    Values inside objects have keys joined with dots, those inside lists the key of the list. A
    number or truth value is written as JSON writes it.
    """
    for key, value in metadata.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", text) for inner, text in facts(value))
        elif isinstance(value, list):
            yield from (fact for item in value for fact in facts({key: item}))
        elif value is not None:
            yield key, value if isinstance(value, str) else canonical_json(value)


# Most facts of one source are those of the rows before: a language, a category.
@lru_cache(maxsize=10_000)
def _fact(name: str, value: str) -> str:
    # 64 bits: a search compares what it finds with the value itself.
    return MARK + text_hash(f"{name}={value}")[:16]


@dataclass(frozen=True, slots=True)
class Term:
    """Words that stand side by side in one message."""

    words: tuple[str, ...]
    is_prefix: bool = False
    """Whether the last word may go on."""
    is_excluded: bool = False
    """Whether examples that have it are left out."""


def parse_terms(text: str) -> list[Term]:
    """What a person typed, term by term; whatever it is, it is a search.

    refund policy          both words
    "refund policy"        the phrase; e-mail is the phrase "e mail"
    refund*                a word that begins so
    -refund                not this; also -"refund policy"
    """
    terms = []
    for found in _TERM.finditer(text):
        phrase, word = found["phrase"], found["word"] or ""
        said = tuple(words(word if phrase is None else phrase))
        if said:
            has_star = word.endswith("*") or bool(found["prefix"])
            is_prefix = has_star and len(said[-1]) >= _SHORTEST_PREFIX
            terms.append(Term(said, is_prefix, bool(found["no"])))
    return terms
