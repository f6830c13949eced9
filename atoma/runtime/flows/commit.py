"""WriteCommitFlow: carry one unit out, wait for the authority where asked, keep what it answered."""

from __future__ import annotations

from msgspec.structs import replace

from atoma.contracts.execution import WriteRequest, WriteResult, status_of
from atoma.contracts.receipts import await_verdicts
from atoma.ports.execution import WritePort
from atoma.runtime.flows.optimism import LayeredWrites
from atoma.runtime.flows.results import ResultMismatch, aligned
from atoma.runtime.flows.writeback import WriteBack

__all__ = ["ResultMismatch", "WriteCommitFlow"]


class WriteCommitFlow:
    """Carries units out over the write port.

    Args:
        port: Carries writes out.
        writeback: Keeps remote answers of unsynced stores.
        layered: Shows writes that another machine decides; None when there is no local database to show them in.
    """

    def __init__(self, port: WritePort, writeback: WriteBack, layered: LayeredWrites | None = None) -> None:
        self._port = port
        self._writeback = writeback
        self._layered = layered

    async def commit(self, request: WriteRequest) -> WriteResult:
        """Carry ``request`` out and return one result per entry, in entry order.

        With ``confirm="strict"`` it returns after the authority's verdict on every written item; items that the
        authority refused are refused in the result.

        Raises:
            ResultMismatch: The port broke its contract.
        """
        if self._layered is not None and self._layered.takes(request):
            return await self._layered.write(request)
        result = aligned(request, await self._port.execute_write(request))
        await self._writeback.keep_results(request, result)
        if request.options.confirm != "strict" or not result.receipts:
            return result
        items = await await_verdicts(result.items, result.receipts)
        return replace(result, status=status_of(items), items=items)
