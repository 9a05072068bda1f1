"""Canonical JSON and content hashes: the names of everything Burnish keeps.

Canonical JSON follows RFC 8785 where it matters to us: sorted keys, no white space, UTF-8. Python
floats are written by `repr`, which round-trips.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

# Made once: `json.dumps` makes an encoder a call, a fifth of the time a short record takes.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical_json(value: Any) -> str:
    """One text for one value, whatever the order its keys were given in."""
    return _encode(value)


def content_hash(value: Any) -> str:
    """`text_hash` of a value's canonical JSON."""
    return text_hash(canonical_json(value))


def text_hash(text: str) -> str:
    """128 bits of SHA-256 over a text, as 32 hex digits.

    Half of SHA-256 is enough: a collision among 10^12 records has a chance below 10^-14.
    """
    # A lone surrogate is legal in JSON ("\ud800") but not in UTF-8; it must hash, not crash.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
