"""The execution ports: how a query and a write are carried out, and how results are written back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from atoma.contracts.execution import (
    Durability,
    QueryRequest,
    QueryResult,
    Resolution,
    ResolveRequest,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.writeback import Applied, DecidedMutation, Writeback
from atoma.ports.local import LocalTx


@runtime_checkable
class QueryPort(Protocol):
    """A port that carries queries out; the kernel is one."""

    async def execute_query(self, request: QueryRequest) -> QueryResult:
        """Answer ``request`` within the caller's cancel scope."""
        ...


@runtime_checkable
class WritePort(Protocol):
    """A port that carries writes out; the kernel is one."""

    async def execute_write(self, request: WriteRequest) -> WriteResult:
        """Carry ``request`` out within the caller's cancel scope; refused items are results, not exceptions."""
        ...


@runtime_checkable
class ResolvePort(Protocol):
    """A port that finds out what became of writes; the kernel is one."""

    async def execute_resolve(self, request: ResolveRequest) -> Resolution:
        """Ask who decides, within the caller's cancel scope; what is answered once is answered again."""
        ...


@runtime_checkable
class ApplyPort(Protocol):
    """A port by which the local database takes over what an authority holds and has decided."""

    async def apply_writeback(self, writeback: Writeback) -> Applied:
        """Take ``writeback`` over in one local transaction; a value, of which no function runs in it.

        Staging nodes never run here, so nothing echoes into the outbox. Live queries see one diff after the commit. A
        writeback that was taken over before, or came late, changes nothing.

        Cancellation is noticed before the transaction begins and after it has committed, never in between.

        Raises:
            StoreError: The engine failed; nothing has changed.
            PluginError: It asks for a change of replication that this client does not know.
        """
        ...


class Voided(Exception):
    """Raised by a :class:`WritebackPart`: nothing of the writeback is to be done.

    Args:
        told: What :attr:`Applied.told` is then.
    """

    def __init__(self, told: object = None) -> None:
        super().__init__("voided")
        self.told = told


class WritebackPart(Protocol):
    """The changes of one component in the transaction of a writeback; registered where a client is composed.

    There is one, for replication: cursors, staged snapshots, the outbox and the inbox move with rows and verdicts or not
    at all. No plugin can add another.
    """

    def stage(
        self,
        tx: LocalTx,
        writeback: Writeback,
        decided: Sequence[DecidedMutation],
        touched: dict[tuple[str, str], None],
    ) -> object:
        """Do this part of ``writeback``, whose rows are in the base already; return what :attr:`Applied.told` is.

        Args:
            tx: The open transaction.
            writeback: The writeback.
            decided: Mutations of the outbox that it has verdicts on, in the order of the verdicts.
            touched: Rows whose base or pending mutations have changed; to be added to. They are rebuilt afterwards.

        Raises:
            Voided: Nothing of the writeback is to be done.
        """
        ...


@runtime_checkable
class QueryNode(Protocol):
    """A node of a policy that answers queries.

    One that does not look at the deadline of the request may have an attribute ``bound_by_deadline = False``; see
    :attr:`OperationContext.unread`.
    """

    async def query(self, request: QueryRequest) -> QueryResult:
        """Answer ``request``."""
        ...


@runtime_checkable
class WriteNode(Protocol):
    """A node of a policy that carries writes out.

    One that reaches another machine has an attribute ``remote = True``, unless its id begins with ``remote-``.
    """

    async def write(self, request: WriteRequest) -> WriteResult:
        """Carry ``request`` out; refused items are results.

        An ``AtomaError`` that it raises is taken at its word. After any other exception the write is unknown when the
        node is remote, and counts as not carried out when it is not.
        """
        ...


@runtime_checkable
class ResolvingNode(Protocol):
    """A node that can tell what became of a write whose answer was lost."""

    async def resolve(self, request: ResolveRequest) -> Resolution:
        """Ask the authority behind the node; the answer is final, and the same whenever it is asked again.

        Raises:
            AtomaError: The authority could not be asked, or its answer was lost: the write is as unknown as before.
        """
        ...


@runtime_checkable
class MergingNode(Protocol):
    """A node that makes one query result of several."""

    def spread(self, request: QueryRequest) -> QueryRequest:
        """What to ask each side, so that their results can be merged into the answer of ``request``."""
        ...

    def merge(self, request: QueryRequest, results: Sequence[QueryResult]) -> QueryResult:
        """One result of ``results``, which are in the order of the policy; synchronous and pure."""
        ...


@runtime_checkable
class Staging(Protocol):
    """A node that can take part in an atomic segment."""

    @property
    def database(self) -> str:
        """Identity of the database it stages into; all nodes of a segment must have the same."""
        ...

    def stage(self, tx: LocalTx, request: WriteRequest) -> None:
        """Do this node's part of ``request`` inside the open transaction.

        Synchronous; no waiting, no retry, no fallback. Raising rolls the whole unit back.
        """
        ...


@runtime_checkable
class AtomicWriter(Protocol):
    """A port that commits the stages of a unit in one transaction; the engine is one."""

    @property
    def database(self) -> str:
        """Identity of the database."""
        ...

    def durability_of(self, stores: Collection[str], asked: Durability | None = None) -> Durability:
        """What a write on ``stores`` survives: as the call ``asked``, else as a store says, else as the engine does.

        One store that is ``full`` makes the whole write ``full``.
        """
        ...

    async def commit(self, request: WriteRequest, stages: Sequence[Staging]) -> WriteResult:
        """Run ``stages`` in order in one ``BEGIN IMMEDIATE … COMMIT`` and report item by item.

        An atomic unit with a refused item leaves nothing behind (status ``rejected``). Units of concurrent callers may
        share a transaction, each in a savepoint of its own. Cancellation is noticed before BEGIN and after COMMIT only.

        Raises:
            StoreError: The engine failed; the unit was rolled back.
        """
        ...
