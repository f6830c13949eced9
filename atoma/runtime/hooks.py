"""The hooks of stores as the runtime carries them out: after a commit, and around what another machine decides.

``before_save`` itself belongs to the transaction of a write, see :mod:`atoma.mutations.saving`.
"""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio
from msgspec.structs import replace

from atoma.contracts.events import Event, HookFailed
from atoma.contracts.execution import WriteRequest, WriteResult
from atoma.contracts.mutations import Op
from atoma.contracts.values import ErrorInfo, RowImage, StoredRow
from atoma.errors import ValidationError
from atoma.mutations import prepared_elsewhere
from atoma.ports.engine import Commit
from atoma.schema.hooks import Saved
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec

_log = logging.getLogger("atoma.hooks")

WAITING_MAX = 10_000
"""Rows whose ``after_save`` may wait for its turn; of more, it is not called, and the log and an event say so."""
CLOSE_S = 5.0
"""How long a client that closes goes on calling ``after_save`` for what was committed."""


class StoreHooks:
    """The caller of ``after_save`` and ``writeback``, and ``before_save`` where a write leaves this device undecided.

    Args:
        schema: The declared stores.
        emit: Tells the listeners.
        now_ms: This device's wall clock.
    """

    def __init__(self, schema: Schema, emit: Callable[[Event], None], now_ms: Callable[[], int]) -> None:
        self._schema = schema
        self._emit = emit
        self._now_ms = now_ms
        self._waiting: deque[tuple[StoreSpec[Any], Saved[Any]]] = deque()
        self._arrived = trio.Event()

    @property
    def listens(self) -> bool:
        """Whether some store has an ``after_save``, so that :meth:`run` has something to do."""
        return any(store.hooks.after_save is not None for store in self._schema.stores.values())

    # before a write leaves

    def leaving(self, request: WriteRequest) -> WriteRequest:
        """``request`` as another machine is to decide it.

        Raises:
            ValidationError: ``before_save`` refuses a row, or cannot be shown it; nothing has been sent.
        """
        if not any(self._schema.store(op.store).is_prepared for op in request.entries):
            return request
        entries: list[Op] = []
        now_ms = self._now_ms()
        for index, entry in enumerate(request.entries):
            op = prepared_elsewhere(entry, index, self._schema.store(entry.store), request.idem, now_ms)
            if isinstance(op, ErrorInfo):
                raise ValidationError(op.message, store=entry.store, field=op.info.get("field", ""))
            entries.append(op)
        return replace(request, entries=tuple(entries))

    # behind a commit

    def hear(self, commit: Commit) -> None:
        """A commit of this device."""
        for effect in commit.saved:
            self._queue(effect.op.store, effect.op.id, effect.pre, effect.post)

    def answered(self, request: WriteRequest, result: WriteResult) -> None:
        """Another machine has carried ``request`` out, and nothing of it was shown here before."""
        if result.meta.source != "remote":
            return  # a commit of this device, which was heard
        for op, item in zip(request.entries, result.items, strict=True):
            if item.ok and item.changed:
                self._queue(op.store, op.id, None, item.row)

    def _queue(self, store: str, id: str, pre: RowImage | None, post: RowImage | None) -> None:
        spec = self._schema.store(store)
        if spec.hooks.after_save is None:
            return
        if len(self._waiting) >= WAITING_MAX:
            why = f"{WAITING_MAX:,} calls wait; it was not called"
            _log.error("after_save of store %s, row %s: %s", store, id, why)
            self._emit(HookFailed("after_save", store, id, why))
            return
        self._waiting.append((spec, Saved(store, id, spec.seen(id, pre), spec.seen(id, post))))
        self._arrived.set()

    async def run(self) -> None:
        """Call ``after_save`` for what is committed, row by row in the order of the commits, until cancelled.

        What waits then is still called, for at most :data:`CLOSE_S` seconds.
        """
        try:
            while True:
                await self._arrived.wait()
                self._arrived = trio.Event()
                await self._call_waiting()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await self._call_waiting()

    async def _call_waiting(self) -> None:
        while self._waiting:
            spec, saved = self._waiting.popleft()
            hook = spec.hooks.after_save
            assert hook is not None
            try:
                answer = hook(saved)
                if inspect.isawaitable(answer):
                    await answer
            except Exception as error:  # the write stands, whatever an application's function does
                _log.exception("after_save of store %s failed on row %s", saved.store, saved.id)
                self._emit(HookFailed("after_save", saved.store, saved.id, f"{type(error).__name__}: {error}"))
            await trio.lowlevel.checkpoint()

    # into the cache

    def kept(self, store: str, rows: Sequence[StoredRow]) -> Sequence[StoredRow] | None:
        """What is to be kept of the ``rows`` of an answer; None for nothing of it, when ``writeback`` has failed."""
        spec = self._schema.store(store)
        hook = spec.hooks.writeback
        if hook is None or not rows:
            return rows
        answered = {row.id: row for row in rows}
        try:
            wanted = hook(tuple([spec.read(row) for row in rows]))
            return [_written_back(answered, *spec.encode(item), spec) for item in wanted]
        except Exception as error:  # the answer is true, whatever an application's function does
            _log.exception("writeback of store %s failed; the answer is not kept", store)
            self._emit(HookFailed("writeback", store, "", f"{type(error).__name__}: {error}"))
            return None


def _written_back(answered: Mapping[str, StoredRow], id: str, image: RowImage, spec: StoreSpec[Any]) -> StoredRow:
    row = answered.get(id)
    if row is None or spec.scope_of(image) != row.scope:
        raise ValidationError(
            f"{spec.name}/{id}: writeback changes or leaves out rows of the answer, in their scopes", store=spec.name
        )
    return replace(row, image=image)
