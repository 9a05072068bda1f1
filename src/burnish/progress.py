"""Progress bars on standard error, with rate and time left, for work over two seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], what: str, *, unit: str, total: int | None = None) -> Iterable[T]:
    """Pass `items` through, drawing a bar once two seconds have gone by."""
    return tqdm(items, what, total, unit=unit, **_STYLE)


@contextmanager
def progress_bar(what: str, *, unit: str, total: int | None, initial: int = 0) -> Iterator[Any]:
    """A bar to `update(n)` by hand; `set_postfix_str` shows figures beside it.

    With `refresh=False`, that is: else it draws the bar at once, and short work is not silent.
    """
    with tqdm(desc=what, total=total, unit=unit, initial=initial, **_STYLE) as bar:
        yield bar


# `delay` keeps short work silent. On a pipe a bar redrawn ten times a second is noise: every 10 s.
_STYLE: dict[str, Any] = {
    "delay": 2.0,
    "dynamic_ncols": True,
    "unit_scale": True,
    "mininterval": 0.1 if sys.stderr.isatty() else 10.0,
    "file": None,
    # A bar inside another one goes when it is done.
    "leave": None,
}
