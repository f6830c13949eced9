"""The node that has the lanes bring what a query looks at, so that a policy can read it here afterwards."""

from __future__ import annotations

from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.ports.completeness import CompletenessBoard
from atoma.query.plans import is_count
from atoma.sync.control import SyncControl

PULL_NODE = "pull"


class PullNode:
    """Brings the scopes that a query looks at to the hub's head. Its answer has no rows, or counts none: they are here then.

    Args:
        control: Has the lanes pull.
        completeness: Knows what a query looks at.
    """

    remote = True

    def __init__(self, control: SyncControl, completeness: CompletenessBoard) -> None:
        self._control = control
        self._completeness = completeness

    async def query(self, request: QueryRequest) -> QueryResult:
        """Wait until the hub's rows are here as they are now.

        Raises:
            AtomaError: As :meth:`SyncControl.pull`.
        """
        scopes = self._completeness.sight(request.query).scopes
        await self._control.pull(None if scopes is None else sorted(scopes))
        return QueryResult((), ((0,),)) if is_count(request.query.plan) else QueryResult()
