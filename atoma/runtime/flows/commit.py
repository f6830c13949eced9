"""WriteCommitFlow: carry one unit out, wait for the authority where asked, keep what it answered."""

from __future__ import annotations

from atoma.contracts.execution import (
    Receipt,
    WriteItemResult,
    WriteRequest,
    WriteResult,
    status_of,
)
from atoma.contracts.values import ErrorInfo
from atoma.errors import AtomaError, WriteRejected
from atoma.ports.execution import WritePort
from atoma.runtime.flows.writeback import WriteBack


class ResultMismatch(AtomaError):
    """A write port answered with results that do not fit the request; the outcome cannot be trusted."""

    code = "RESULT_MISMATCH"


class WriteCommitFlow:
    """Carries units out over the write port.

    Args:
        port: Carries writes out.
        writeback: Keeps remote answers of unsynced stores.
    """

    def __init__(self, port: WritePort, writeback: WriteBack) -> None:
        self._port = port
        self._writeback = writeback

    async def commit(self, request: WriteRequest) -> WriteResult:
        """Carry ``request`` out and return one result per entry, in entry order.

        With ``confirm="strict"`` it returns after the authority's verdict on every written item; items that the
        authority refused are refused in the result.

        Raises:
            ResultMismatch: The port broke its contract.
        """
        result = _aligned(request, await self._port.execute_write(request))
        await self._writeback.keep_results(request, result)
        if request.options.confirm == "strict" and result.receipts:
            result = await self._await_verdicts(request, result)
        return result

    async def _await_verdicts(self, request: WriteRequest, result: WriteResult) -> WriteResult:
        items: list[WriteItemResult] = []
        for item, receipt in zip(result.items, result.receipts, strict=True):
            if item.ok and isinstance(receipt, Receipt):
                try:
                    await receipt.wait(observed=False)
                except WriteRejected as error:
                    info = ErrorInfo(error.reason, str(error))
                    items.append(WriteItemResult(item.id, ok=False, error=info))
                    continue
            items.append(item)
        final = tuple(items)
        return WriteResult(status_of(final), final, result.meta, result.receipts)


def _aligned(request: WriteRequest, result: WriteResult) -> WriteResult:
    """Bring the results into entry order by their ids; refuse what does not belong to the request (A08, A23)."""
    if result.status != status_of(result.items):
        raise ResultMismatch(f"status {result.status!r} disagrees with the items ({status_of(result.items)!r})")
    if result.receipts and len(result.receipts) != len(result.items):
        raise ResultMismatch("there must be one receipt per item, or none")
    wanted = [entry.id for entry in request.entries]
    if [item.id for item in result.items] == wanted:
        return result
    places = {item.id: place for place, item in enumerate(result.items)}
    if len(places) != len(wanted) or len(result.items) != len(wanted) or not places.keys() >= set(wanted):
        raise ResultMismatch(f"{len(result.items)} result(s) do not match the {len(wanted)} entries of the request")
    order = [places[id] for id in wanted]
    items = tuple(result.items[place] for place in order)
    receipts = tuple(result.receipts[place] for place in order) if result.receipts else ()
    return WriteResult(result.status, items, result.meta, receipts)
