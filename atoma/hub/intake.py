"""Writes that other programs leave in the hub's database: each is decided like a direct write of theirs, in their order.

A write is decided under its own key before its answer is kept. So a process that is killed in between, and two that are at the same
write, find the answer that was given: the key is what makes it happen once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import msgspec
import trio

from atoma.concurrency.backoff import Backoff, Retries
from atoma.contracts.execution import OperationContext, WriteItemResult, WriteOptions, WriteRequest
from atoma.contracts.failures import info_from, refusal
from atoma.contracts.mutations import KIND_OF, Op
from atoma.contracts.values import ErrorInfo, RowImage
from atoma.errors import AtomaError, ValidationError, is_retryable
from atoma.hub.service import HubCore, HubService
from atoma.ports.intake import IntakeTurn, LeftAnswer, LeftWrite, TakesLeftWrites
from atoma.ports.service import Principal
from atoma.ports.tasks import open_tasks
from atoma.schema.hiding import softly
from atoma.schema.left_values import values_from_json

_log = logging.getLogger("atoma.hub")
AT_ONCE = 100
"""Writes that are taken at a time, whatever their scopes."""
BACKOFF = Backoff(initial_s=0.1, max_s=5.0)


class Intake:
    """The task that decides what other programs have left.

    Args:
        core: The hub.
        source: Its database.
    """

    def __init__(self, core: HubCore, source: TakesLeftWrites) -> None:
        self._core, self._source = core, source
        self._retries = Retries(BACKOFF, core.environment.random)

    async def run(self) -> None:
        """Decide until cancelled; a failure is logged, and what it has left undecided is taken up again."""
        while True:
            try:
                async with self._source.open_intake() as turn:
                    while True:
                        await self._once(turn)
                        self._retries.reset()
            except AtomaError as error:
                _log.warning("writes that other programs have left wait: %s", error)
                await trio.sleep(self._retries.fail())

    async def _once(self, turn: IntakeTurn) -> None:
        left = await turn.left(AT_ONCE)
        scopes: dict[str, list[LeftWrite]] = {}
        for write in left:
            scopes.setdefault(write.scope, []).append(write)
        answers: list[LeftAnswer] = []
        failures: list[AtomaError] = []
        async with open_tasks() as nursery:
            for writes in scopes.values():
                nursery.start_soon(self._decide, writes, answers, failures)
        if answers:
            await turn.answer(answers)
            self._retries.reset()  # a scope that is held up keeps the others waiting no longer than it has to
        if failures:
            raise failures[0]
        if len(left) < AT_ONCE:
            await turn.wait()

    async def _decide(self, writes: Sequence[LeftWrite], answers: list[LeftAnswer], failures: list[AtomaError]) -> None:
        """Decide the writes of one scope, one after the other, up to the first that has to be tried again."""
        for write in writes:
            try:
                item = await self._write(write)
            except AtomaError as error:
                if is_retryable(error):
                    failures.append(error)
                    return
                item = WriteItemResult(write.id, False, error=info_from(error))
            answers.append(LeftAnswer(write.number, _told(write, item)))

    async def _write(self, write: LeftWrite) -> WriteItemResult:
        op = self._op(write)
        if isinstance(op, ErrorInfo):
            return WriteItemResult(write.id, False, error=op)
        service = HubService(self._core, Principal(write.subject))
        context = OperationContext(self._core.environment.ids())
        result = await service.write(WriteRequest((op,), WriteOptions(confirm="strict"), context, write.key))
        return result.items[0]

    def _op(self, write: LeftWrite) -> Op | ErrorInfo:
        """The operation; or what is wrong with it, where no operation could say it."""
        kind = KIND_OF.get(write.op)
        if kind is None:
            return refusal("INVALID", f"there is no {write.op!r}: {', '.join(KIND_OF)}")
        store = self._core.context.schema.stores.get(write.store)
        try:
            values = values_from_json(write.values, {} if store is None else store.fields)
        except ValidationError as error:
            return info_from(error)
        op = Op(kind, write.store, write.id, cast("RowImage", values), scope=write.scope)
        return softly(op) if store is not None and store.soft_delete else op


def _told(write: LeftWrite, item: WriteItemResult) -> str:
    """What the program that left the write is told, the id among it where the hub has drawn it."""
    if item.error is None:
        told: dict[str, object] = {"ok": True, "changed": item.changed, "version": item.version}
        if not write.id:
            told["id"] = item.id
    else:
        told = {"ok": False, "code": item.error.code, "message": item.error.message}
    return msgspec.json.encode(told).decode()
