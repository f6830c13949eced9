"""WriteFlow: from validated entries to a request with its idempotency key, and from results to the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoma.contracts.checks import check_word
from atoma.contracts.execution import Confirm, Durability, OperationContext, WriteOptions, WriteRequest, WriteResult
from atoma.contracts.mutations import Op
from atoma.errors import PolicyNotAllowed
from atoma.runtime.flows.commit import WriteCommitFlow
from atoma.runtime.registry import PolicyNames
from atoma.schema.spec import CONFIRMS, DURABILITIES, Schema


class WriteFlow:
    """Draws the key of a unit before anything runs, and hands it to the commit flow.

    Args:
        commit: Carries units out.
        names: Chooses the policy.
        ids: Draws keys.
        traces: Draws trace ids.
        schema: Default ``confirm`` of the stores.
    """

    def __init__(
        self,
        commit: WriteCommitFlow,
        names: PolicyNames,
        ids: Callable[[], str],
        traces: Callable[[], str],
        schema: Schema,
    ) -> None:
        self._commit = commit
        self._names = names
        self._ids = ids
        self._traces = traces
        self.schema = schema

    async def write(
        self,
        entries: Sequence[Op],
        *,
        policy: str | None = None,
        confirm: Confirm | None = None,
        atomic: bool = False,
        durability: Durability | None = None,
        reads: tuple[tuple[str, str, int | None], ...] = (),
    ) -> WriteResult:
        """Write one unit; refused items are in the result.

        Raises:
            UnknownPolicy: No such policy.
            PolicyNotAllowed: The stores of an atomic unit have different policies.
            ValidationError: No such ``confirm`` or ``durability``.
        """
        check_word("confirm", confirm, CONFIRMS)
        check_word("durability", durability, DURABILITIES)
        stores = {entry.store for entry in entries}
        policies = {self._names.resolve(store, policy) for store in stores}
        if len(policies) > 1:
            named = ", ".join(sorted(stores))
            raise PolicyNotAllowed("/".join(sorted(policies)), named, "one unit runs under one policy")
        context = OperationContext(self._traces(), policies.pop())
        options = WriteOptions(confirm or self._confirm(stores), atomic, durability, reads)
        return await self._commit.commit(WriteRequest(tuple(entries), options, context, self._ids()))

    def _confirm(self, stores: set[str]) -> Confirm:
        """The stores' own; one strict store makes the unit strict."""
        return "strict" if any(self.schema.store(store).confirm == "strict" for store in stores) else "optimistic"
