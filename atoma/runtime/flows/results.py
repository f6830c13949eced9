"""What a write port answered, checked against what it was asked."""

from __future__ import annotations

from msgspec.structs import replace

from atoma.contracts.execution import WriteRequest, WriteResult, status_of
from atoma.errors import AtomaError


class ResultMismatch(AtomaError):
    """A write port answered with results that do not fit the request; the outcome cannot be trusted."""

    code = "RESULT_MISMATCH"


def aligned(request: WriteRequest, result: WriteResult) -> WriteResult:
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
    return replace(result, items=items, receipts=receipts)
