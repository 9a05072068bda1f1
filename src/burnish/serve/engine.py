"""The thread that owns the model: every active request gets its next token in one forward pass.

Requests join and leave between tokens (continuous batching, Orca, OSDI 2022). Tokens are handed to
the event loop and wait there, so a slow reader delays nobody; a cancelled request frees its place
before the next token.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence

from burnish.nn.decoding import DecodingBatch, Row, Token
from burnish.nn.generate import generating, require_plain_cache
from burnish.nn.models import LoadedModel

_log = logging.getLogger(__name__)

# A forward pass under way cannot be interrupted; a longer one is left to die with the process.
_CLOSING_SECONDS = 2.0


class EngineBusyError(Exception):
    """More requests wait than are allowed to."""


class EngineError(Exception):
    """The answer cannot be finished: the server stops, or the model failed."""


class Generation:
    """One answer in the making, as the event loop sees it."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self._tokens: asyncio.Queue[Token | EngineError] = asyncio.Queue()

    async def tokens(self) -> AsyncIterator[Token]:
        """The tokens as they come, up to the one with a finish reason.

        Raises:
            EngineError: the server stops, or the model failed.
        """
        while True:
            token = await self._tokens.get()
            if isinstance(token, EngineError):
                raise token
            yield token
            if token.finish_reason:
                return

    def deliver(self, token: Token | EngineError) -> None:
        """Hand over a token from the engine's thread; never blocks."""
        try:
            self._loop.call_soon_threadsafe(self._tokens.put_nowait, token)
        except RuntimeError:  # the event loop has closed: nobody is left to read
            self.cancelled = True


class Engine:
    """Owns the model from `start` to `close`; `submit` and `cancel` may be called from the loop."""

    def __init__(self, loaded: LoadedModel, *, max_active: int, max_waiting: int) -> None:
        """At most `max_active` answers are decoded together, and `max_waiting` more may queue."""
        require_plain_cache(loaded)
        self.loaded = loaded
        self._max_active, self._max_waiting = max_active, max_waiting
        self._waiting: deque[Generation] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._active: dict[Row, Generation] = {}
        self._thread = threading.Thread(target=self._run, name="burnish-engine", daemon=True)

    def start(self) -> None:
        """Start decoding."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the token under way; unfinished answers end with an EngineError."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_CLOSING_SECONDS)

    @property
    def load(self) -> tuple[int, int]:
        """How many answers are being decoded and how many wait."""
        return len(self._active), len(self._waiting)

    def submit(self, rows: Sequence[Row]) -> list[Generation]:
        """Queue rows (see `nn.decoding.make_row`), all of them or none.

        Raises:
            EngineBusyError: too many wait already.
            EngineError: the server stops.
        """
        generations = [Generation(row) for row in rows]
        with self._changed:
            if self._closing:
                raise EngineError("the server is stopping")
            free = self._max_active - len(self._active)
            if len(self._waiting) + len(rows) > self._max_waiting + free:
                raise EngineBusyError(
                    f"{len(self._active)} answers are being written and {len(self._waiting)} wait"
                )
            self._waiting += generations
            self._changed.notify()
        return generations

    def cancel(self, generation: Generation) -> None:
        """Give up an answer; one that has ended already is left as it is."""
        with self._changed:
            generation.cancelled = True
            if generation in self._waiting:
                self._waiting.remove(generation)

    def _run(self) -> None:
        with generating(self.loaded):
            batch = DecodingBatch(self.loaded)
            while (joining := self._next()) is not None:
                try:
                    self._advance(batch, joining)
                except Exception:
                    # Out of memory, a model that cannot take these ids: whatever it is, the answers
                    # under way are lost and the server goes on.
                    _log.exception("the model failed; %d answers are lost", len(self._active))
                    self._fail("the model failed; the server's log says how")
                    batch = DecodingBatch(self.loaded)
        self._fail("the server is stopping")

    def _next(self) -> list[Row] | None:
        """Wait for work; the rows that join now, or None when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting or self._active)
            if self._closing:
                return None
            joining = []
            while self._waiting and len(self._active) < self._max_active:
                generation = self._waiting.popleft()
                self._active[generation.row] = generation
                joining.append(generation.row)
            return joining

    def _advance(self, batch: DecodingBatch, joining: list[Row]) -> None:
        """One token for every active row."""
        batch.join(joining)
        for row in [row for row, generation in self._active.items() if generation.cancelled]:
            batch.leave(row)
            del self._active[row]
        if not batch.rows:
            return
        for row, token in batch.step():
            self._active[row].deliver(token)
            if token.finish_reason:
                batch.leave(row)
                del self._active[row]

    def _fail(self, reason: str) -> None:
        with self._changed:
            lost = [*self._active.values(), *(self._waiting if self._closing else ())]
            self._active.clear()
        for generation in lost:
            generation.deliver(EngineError(reason))
