"""ResolveFlow: what became of a write whose answer was lost, asked where it went, and shown here once it is known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from atoma.contracts.checks import is_a
from atoma.contracts.execution import (
    ExecutionMeta,
    OperationContext,
    Resolution,
    ResolveRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.receipts import await_verdicts
from atoma.errors import ConfigurationError, NotResolvable, WriteUnknown
from atoma.ports.execution import ResolvePort
from atoma.runtime.flows.optimism import LayeredWrites

Recall: TypeAlias = Callable[[str], Awaitable[WriteResult | None]]
"""What became here of the unit with a key; see :meth:`atoma.ports.engine.LocalDatabase.recall`."""


class ResolveFlow:
    """Resolves the keys of writes.

    Args:
        port: Asks who decides.
        recall: Tells of the writes that lie or lay in this device's outbox; None without a local database.
        layered: Shows writes that are not decided; None without a local database.
        traces: Draws trace ids.
    """

    def __init__(
        self, port: ResolvePort, recall: Recall | None, layered: LayeredWrites | None, traces: Callable[[], str]
    ) -> None:
        self._port = port
        self._recall = recall
        self._layered = layered
        self._traces = traces

    async def resolve(self, write: WriteUnknown | str, policy: str | None = None) -> Resolution:
        """Ask what became of ``write``; see :meth:`atoma.Client.resolve`."""
        if not is_a(write, str) and not is_a(write, WriteUnknown):
            raise ConfigurationError(f"resolve() takes a WriteUnknown error or its key idem, not {write!r}")
        idem, nodes = (write, None) if isinstance(write, str) else (write.idem, write.nodes)
        queued = None if self._recall is None else await self._recall(idem)
        if queued is not None:  # it will be sent, or was: the hub knows it by its number, and nobody may abandon it
            return await self._judged(idem, queued)
        if nodes == ():
            raise NotResolvable(idem, "no node that it went to can tell; what this device decides, its handle tells")
        context = OperationContext(self._traces(), policy or "")
        found = await self._port.execute_resolve(ResolveRequest(idem, context, nodes or ()))
        if self._layered is not None:
            await self._layered.resolved(found)
        return found

    async def _judged(self, idem: str, queued: WriteResult) -> Resolution:
        """The hub's verdict on a write of the outbox, once it is there."""
        items = await await_verdicts(queued.items, queued.receipts)
        meta = ExecutionMeta(trace_id=self._traces())
        result = WriteResult(status_of(items), items, meta, (None,) * len(items))
        return Resolution(idem, result, meta)
