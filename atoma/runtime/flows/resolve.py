"""ResolveFlow: what became of a write whose answer was lost, asked where it went, and shown here once it is known."""

from __future__ import annotations

from collections.abc import Callable

from atoma.contracts.checks import is_a
from atoma.contracts.execution import OperationContext, Resolution, ResolveRequest
from atoma.errors import ConfigurationError, NotResolvable, WriteUnknown
from atoma.ports.execution import ApplyPort, ResolvePort
from atoma.ports.local import LocalTx
from atoma.runtime.flows.optimism import LayeredWrites


class ResolveFlow:
    """Resolves the keys of writes.

    Args:
        port: Asks who decides.
        apply: The way into the local database; None without one.
        layered: Shows writes that are not decided; None without a local database.
        traces: Draws trace ids.
    """

    def __init__(
        self, port: ResolvePort, apply: ApplyPort | None, layered: LayeredWrites | None, traces: Callable[[], str]
    ) -> None:
        self._port = port
        self._apply = apply
        self._layered = layered
        self._traces = traces

    async def resolve(self, write: WriteUnknown | str, policy: str | None = None) -> Resolution:
        """Ask what became of ``write``; see :meth:`atoma.Client.resolve`."""
        if not is_a(write, str) and not is_a(write, WriteUnknown):
            raise ConfigurationError(f"resolve() takes a WriteUnknown error or its key idem, not {write!r}")
        idem, nodes = (write, None) if isinstance(write, str) else (write.idem, write.nodes)
        await self._check_outbox(idem)
        if nodes == ():
            raise NotResolvable(idem, "no node that it went to can tell; what this device decides, its handle tells")
        context = OperationContext(self._traces(), policy or "")
        found = await self._port.execute_resolve(ResolveRequest(idem, context, nodes or ()))
        if self._layered is not None:
            await self._layered.resolved(found)
        return found

    async def _check_outbox(self, idem: str) -> None:
        """Refuse a write that still lies in the outbox: it will be sent, so nobody may call it abandoned."""
        if self._apply is None:
            return
        waiting = await self._apply.apply_writeback(lambda tx: _pending(tx, idem))
        if waiting:
            raise NotResolvable(
                idem, f"{waiting} mutation(s) of it lie in this device's outbox; its handle follows them"
            )


def _pending(tx: LocalTx, idem: str) -> int:
    return len(tx.pending_by_key(idem))
