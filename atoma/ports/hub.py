"""The port of a hub's database.

Decisions are pure functions of loaded facts and return a plan; the database loads the facts and carries out the plan, in
one transaction. No SQL crosses this port, and no code of the hub runs while a database waits for its disk or network. Several
processes may share a database if its store supports that: :meth:`HubDatabase.follow` reports what others commit, and the epoch
is read in the transaction that makes an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from atoma.contracts.mutations import Origin, Recovers
from atoma.contracts.query import BoundQuery, Expr
from atoma.contracts.sync import DevicePolicy, Outcome, Place
from atoma.contracts.values import ErrorInfo, RowImage, RowKey
from atoma.contracts.versions import PLAIN, Versions
from atoma.errors import AtomaError
from atoma.ports.environment import Environment
from atoma.ports.hub_queries import Fences, QueryPage, ReadAllowance
from atoma.ports.hub_rows import DIRECT, RowFact
from atoma.schema.kinds import INT64_MAX
from atoma.schema.schema import Schema

Permission: TypeAlias = Literal["offers", "deletes", "deletes_put_off", "unproven"]
"""A permission that an operator may give devices: to offer lost rows by themselves, to delete rows that the hub has, to offer unproven ones."""


@dataclass(frozen=True, slots=True)
class HubIdentity:
    """The identity of a hub.

    Attributes:
        hub_id: 16 bytes, forever.
        epoch: 16 bytes, new whenever history may have been cut; as this process has seen it last.
        key: Secret that authenticates snapshot tokens.
    """

    hub_id: bytes
    epoch: bytes
    key: bytes


class ClientState(Struct, frozen=True, gc=False):
    """The hub's knowledge of a client.

    Attributes:
        client_id: The client.
        incarnation: Its history.
        principal: The principal to whom it belongs, from its first use on.
        last_mid: Last mutation that was decided.
        last_digest: Digest chain after it.
        confirmed_mid: Every mutation up to this one has left the client's outbox.
        seen_ms: Wall-clock time of its last contact, exact to about a day, and to an epoch.
    """

    client_id: bytes
    incarnation: int
    principal: str
    last_mid: int = 0
    last_digest: bytes = b""
    confirmed_mid: int = 0
    seen_ms: int = 0


class ScopeState(Struct, frozen=True, gc=False):
    """A scope's log: last sequence with its lineage hash, the oldest cursor that can be continued, and the boots that have written it."""

    scope: str
    head: int = 0
    head_hash: bytes = b""
    floor: int = 0
    boots: bytes = b""


class StoredOutcome(Struct, frozen=True, gc=False):
    """An outcome with the digest it belongs to."""

    outcome: Outcome
    digest: bytes


UNTAKEN = -1
"""Position of a row of which no offer was taken: one was refused."""


class Trace(Struct, frozen=True, gc=False):
    """The trace that an offer has left on a row.

    Attributes:
        position: Position in the lost history from which the row was offered.
        seq: Sequence of the row at that time, 0 if the row was unknown; a different one now means that somebody has written it.
        survivor: Whether the hub still had the row before anybody offered it.
        refused: The furthest position from which an offer of the row was refused, 0 for none: who was there did not see it deleted.
    """

    position: int
    seq: int
    survivor: bool = False
    refused: int = 0

    @property
    def is_taken(self) -> bool:
        """Whether an offer of the row was ever taken."""
        return self.position != UNTAKEN


class Need(Struct, frozen=True, gc=False):
    """The facts that a decision needs.

    Attributes:
        client_id: Client whose state to load, empty for none.
        mids: Outcomes of that client to load.
        scope: Scope to load, empty for none.
        rows: Rows of the scope to load.
        since: Foreign changes are those after this sequence …
        epoch: … of this epoch (empty: nobody knows which), told in :attr:`Facts.since` as one of the hub's history now …
        author: … by anybody but this client.
        answer: ``(principal, key)`` of a direct write whose stored answer to load, and under which the plan's is kept.
        unit: ``(principal, key)`` of a direct write that may have been several mutations, whose answers to load.
        origin: What the mutation is called, or was called first: see :attr:`Facts.decided` and ``doubtful``.
        renamed: Whether ``origin`` is an earlier name, under which its outcome is found from now on.
        principal: Who asks: whose origins, and whose forgotten clients, count; whose a new client is.
        recovers: The offer whose traces to load; for the last one also the rows that others have brought from before.
        opening: The client opens a session: see :attr:`Facts.ended`.
        versions: Versions of the scope's rows are told, or compared: see :attr:`Facts.versions`.
        leftover: The decision takes back what lies behind the scope's head: see :attr:`Facts.leftover`. It goes with the plan.
        counters: Numbers may be drawn: see :attr:`Facts.counters`.
        brought: Which of the rows offers have brought back matters: see :attr:`Facts.brought`.
        size: About how many bytes are to be written, by which the size of groups is bounded.
    """

    client_id: bytes = b""
    mids: tuple[int, ...] = ()
    scope: str = ""
    rows: tuple[RowKey, ...] = ()
    since: int = 0
    epoch: bytes = b""
    author: bytes = DIRECT
    answer: tuple[str, str] | None = None
    unit: tuple[str, str] | None = None
    origin: Origin | None = None
    renamed: bool = False
    principal: str = ""
    recovers: Recovers | None = None
    opening: bool = False
    versions: bool = False
    leftover: bool = False
    counters: bool = False
    brought: bool = False
    size: int = 0


class Facts(Struct, frozen=True, gc=False):
    """The contents of the database at the moment of the decision; earlier decisions of the same run are included.

    Attributes:
        client: The client, None when it was never seen.
        scope: The scope; a fresh one when it was never written.
        rows: One per needed row.
        outcomes: Those needed outcomes that are kept.
        answer: The stored answer.
        now_ms: Wall clock.
        epoch: The hub's epoch.
        decided: Outcome of the mutation under another of its names: another copy of the file has pushed it.
        doubtful: Whether it may have been decided under another of its names, and how is forgotten.
        traces: What offers of the same lost history, not only of its epoch's name, have left on the rows.
        recovered_until: Everything up to this position of the lost history has been offered; 0 for nothing.
        deletes: Whether devices may delete what the hub still has of that history.
        unproven: Whether offers of it count that nothing proves.
        expired: Whether the client was known once and has been forgotten.
        traceless: Whether clients of the principal have been forgotten without a trace, so that this may be one of them.
        violation: Set when the plan broke a unique index: the decision is asked again, for its refusal or another plan, …
        again: … and, when that has broken one as well, for its refusal.
        unit: The stored answers of the unit's numbered mutations, in their order, from the first one on.
        forgotten_ms: Answers to keys that were drawn before this time may be lost; 0 when none is, or the needed one is kept.
        spent: Whether the needed key, which does not tell its age, was used and its answer is forgotten.
        since: How much of the hub's history now is known to whoever asks: in the present epoch what the decision needed, of an
            earlier one nothing behind its end here, of an unknown one nothing, of one not named nothing behind the earliest end.
        ended: Epochs that have ended, oldest first; none when no session is opened.
        versions: How versions of the scope's rows name their epochs.
        leftover: Rows that an older version has written by half, behind the scope's head, as they were before it.
        counters: The last number that each counter of the scope has given.
        brought: Rows that offers have brought back since: what was done to one in a lost history may be in it already.
    """

    client: ClientState | None
    scope: ScopeState
    rows: Mapping[RowKey, RowFact]
    outcomes: Mapping[int, StoredOutcome]
    answer: bytes | None
    now_ms: int
    epoch: bytes = b""
    violation: str = ""
    again: bool = False
    unit: tuple[bytes, ...] = ()
    forgotten_ms: int = 0
    spent: bool = False
    since: int = 0
    expired: bool = False
    traceless: bool = False
    decided: StoredOutcome | None = None
    doubtful: bool = False
    traces: Mapping[RowKey, Trace] = {}
    recovered_until: int = 0
    deletes: bool = True
    unproven: bool = False
    ended: tuple[EndedEpoch, ...] = ()
    versions: Versions = PLAIN
    leftover: Mapping[RowKey, RowImage | None] = {}
    counters: Mapping[str, int] = {}
    brought: frozenset[RowKey] = frozenset()


class Greeting(Struct, frozen=True):
    """The hub's knowledge of a client when it opens a session.

    Attributes:
        client: Its state, None when it has pushed nothing yet.
        known: False when it has been forgotten.
        verdicts: Kept outcomes of the mutations that were asked for.
        epoch: The hub's epoch at that moment.
        ended: Epochs that have ended by then, oldest first.
    """

    client: ClientState | None
    known: bool
    verdicts: tuple[StoredOutcome, ...]
    epoch: bytes
    ended: tuple[EndedEpoch, ...]


@dataclass(frozen=True, slots=True)
class EndedEpoch:
    """An epoch that has ended.

    Attributes:
        epoch: The epoch.
        ended_ms: Wall-clock time of its end.
        devices: What devices do with what they have seen behind that end.
        deletes: Whether they may delete rows that the hub still has.
        unproven: Whether they may offer what nothing proves to have been seen.
    """

    epoch: bytes
    ended_ms: int
    devices: DevicePolicy
    deletes: bool
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class Lineage:
    """A scope's history beside the place that a client told.

    Attributes:
        scope: The scope now.
        ended: How far the scope's history is that of the place's epoch: its head when the epoch ended, its head now in
            the present one. None when that is unknown.
        hashes: Lineage hashes at the place's sequences, where the log still reaches.
        began: The scope's head when the present epoch began, for a place of an epoch that the hub never had.
        devices: What the operator has said about what came behind the end of the place's epoch.
        deletes: Whether devices may delete rows that are still here.
        unproven: Whether devices may offer what nothing proves to have been seen.
    """

    scope: ScopeState
    ended: int | None
    hashes: Mapping[int, bytes]
    began: int = INT64_MAX
    devices: DevicePolicy = "offer"
    deletes: bool = True
    unproven: bool = False


class WrittenRow(Struct, frozen=True, gc=False):
    """One row of a hub transaction.

    Attributes:
        store: Store name.
        id: Row id.
        pre: Image before, None when there was no row.
        post: Image after, None when it is deleted.
        body: Encoded ``post``, as the log keeps it.
        fields: Columns that differ; None for all (created, deleted).
    """

    store: str
    id: str
    pre: RowImage | None
    post: RowImage | None
    body: bytes | None
    fields: tuple[str, ...] | None


class LogTransaction(Struct, frozen=True, gc=False):
    """One accepted mutation: the next sequence of its scope, with everything it changes.

    Attributes:
        scope: The scope.
        seq: Its new head; exactly one more than the old one.
        hash: Lineage hash at ``seq``.
        author: Client that wrote it, :data:`DIRECT` for none.
        mid: The client's number, 0 for a direct write.
        principal: Who wrote it.
        changes: At least one; each row at most once.
        size: Bytes of ids and post images.
        written_ms: When it was written, by the clock of whoever wrote it.
    """

    scope: str
    seq: int
    hash: bytes
    author: bytes
    mid: int
    principal: str
    changes: tuple[WrittenRow, ...]
    size: int
    written_ms: int = 0


class WritePlan(Struct, frozen=True):
    """The result of a decision; all of it becomes durable together, or none of it.

    Attributes:
        client: State of the client from now on.
        transaction: Log transaction to append and apply.
        outcome: Outcome to keep.
        answer: Answer of a direct write to keep under the needed key.
        reply: The decision's reply to its caller; the database passes it on unread.
        stop: Do not run the decisions after this one.
        traces: Rows on which the offer that was decided leaves its position.
        refused: Rows on which it leaves that it was refused.
        recovered_until: Everything up to this position of the lost history has been offered.
        counters: Where counters of the scope stand from now on, those that have moved.
        wants: Rows that the decision turned out to need: it is made again once they are loaded, and nothing else of this plan counts.
    """

    client: ClientState | None = None
    transaction: LogTransaction | None = None
    outcome: StoredOutcome | None = None
    answer: bytes | None = None
    reply: Outcome | ErrorInfo | Greeting | bytes | None = None
    stop: bool = False
    traces: tuple[RowKey, ...] = ()
    refused: tuple[RowKey, ...] = ()
    recovered_until: int = 0
    counters: Mapping[str, int] = {}
    wants: tuple[RowKey, ...] = ()

    @property
    def changes(self) -> tuple[WrittenRow, ...]:
        """The changes of rows."""
        return () if self.transaction is None else self.transaction.changes


@runtime_checkable
class Decision(Protocol):
    """A decision of the hub's about a write or a request."""

    @property
    def need(self) -> Need:
        """The facts that it needs."""
        ...

    def decide(self, facts: Facts) -> WritePlan:
        """Return the plan for ``facts``; a pure function that may be called again."""
        ...


class LoggedChange(Struct, frozen=True, gc=False):
    """A change as the log holds it.

    Attributes:
        seq: Its sequence.
        store: Store name.
        id: Row id.
        post: Image after, None when the row was deleted.
        pre: Image before, where it was asked for; None when there was no row.
    """

    seq: int
    store: str
    id: str
    post: RowImage | None
    pre: RowImage | None = None


@dataclass(frozen=True, slots=True)
class LogPage:
    """Part of a scope's log, read in one snapshot.

    Attributes:
        epoch: Epoch of the hub.
        scope: State of the scope.
        start_hash: Lineage hash at the start, None when the log does not reach there.
        end: Last sequence of the page, cut between transactions; the start when there is nothing.
        end_hash: Lineage hash at ``end``.
        changes: Every change after the start up to ``end``, in order.
        outcomes: The client's outcomes in this scope.
    """

    epoch: bytes
    scope: ScopeState
    start_hash: bytes | None
    end: int
    end_hash: bytes
    changes: tuple[LoggedChange, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class ScanPage:
    """Rows of a scope in (store, id) order, read in one snapshot; ``last`` is None when the scan is complete."""

    epoch: bytes
    scope: ScopeState
    rows: tuple[tuple[str, str, int, RowImage], ...]
    last: RowKey | None


class ClockAhead(AtomaError):
    """A compaction was refused, because it would remove everything, though days old: the machine's clock may be wrong. Nothing was removed."""

    code = "CLOCK_AHEAD"


@dataclass(frozen=True, slots=True)
class CompactReport:
    """A report of a compaction: the counts of what it removed (``purged`` rows, forgotten ``clients`` …) and the floors that it raised."""

    transactions: int = 0
    changes: int = 0
    tombstones: int = 0
    outcomes: int = 0
    answers: int = 0
    aliases: int = 0
    clients: int = 0
    floors: Mapping[str, int] = field(default_factory=dict[str, int])
    purged: int = 0


@runtime_checkable
class HubDatabase(Protocol):
    """An open hub database; every committed write survives a power cut.

    Every method raises ``StoreError`` if the engine failed; then nothing of the call was written.
    """

    @property
    def identity(self) -> HubIdentity:
        """The identity of the hub."""
        ...

    @property
    def unknown_functions(self) -> frozenset[str]:
        """The functions of the table that its queries cannot call; the hub does not announce them."""
        ...

    async def run(
        self, decisions: Sequence[Decision], on_commit: Callable[[Sequence[WritePlan]], None] | None = None
    ) -> Sequence[WritePlan]:
        """Load, decide and carry out ``decisions`` in order, in one transaction; return their plans, up to the first that stops.

        Other callers may share the transaction. What a decision raises is raised here, and nothing of this call is written; the decisions
        of others are not affected. A decision may be called more than once; its last plan counts.

        ``on_commit`` gets the plans in the loop's thread once they are durable, in commit order, also when the caller was
        cancelled meanwhile. If the call is cancelled before the transaction has begun, nothing happens; afterwards it is completed.
        """
        ...

    def follow(
        self, listener: Callable[[Mapping[str, int]], None], watched: Callable[[], Sequence[str]]
    ) -> AbstractAsyncContextManager[None]:
        """Notify ``listener`` inside the block, in the loop's thread, of the heads that other processes have committed.

        Heads of the scopes ``watched`` arrive within seconds, whatever goes wrong; any may come twice. An unshared database reports nothing.
        """
        ...

    async def page(
        self, scope: str, start: int, *, max_bytes: int, max_changes: int, client_id: bytes, principal: str,
        outcomes_after: int, before: Collection[str] = (),
    ) -> LogPage:  # fmt: skip
        """Return the log after ``start``, at least one transaction if there is one, without outcomes of another principal's client.

        The first change of a row in the page also has the image before it, for the stores in ``before``.
        """
        ...

    async def scan(
        self, scope: str, after: RowKey | None, *, max_bytes: int, max_rows: int, allowance: ReadAllowance,
        conditions: Mapping[str, Expr] | None = None,
    ) -> ScanPage:  # fmt: skip
        """Return the rows after ``after``, at least one if there is one; for the stores in ``conditions``, those that satisfy theirs.

        Raises:
            QueryError: The allowed time is over; its cause is the engine's error.
            Overloaded: Too many reads of the database have not ended.
        """
        ...

    async def scopes(self, names: Sequence[str] | None = None) -> Sequence[ScopeState]:
        """Return the states of the named scopes, fresh ones for those never written; of all known scopes for None."""
        ...

    async def lineages(self, places: Sequence[Place]) -> Sequence[Lineage]:
        """Return, for each place, the scope's history beside it."""
        ...

    async def locate(self, store: str, ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the scopes that hold a row with each id."""
        ...

    async def lookup(self, query: BoundQuery, fences: Fences, *, max_bytes: int, max_rows: int) -> QueryPage | None:
        """Answer like :meth:`query` one that should find its rows by id or by an index; None if it takes more than a moment.

        No other caller waits meanwhile, whatever the query is.
        """
        ...

    async def query(
        self, query: BoundQuery, fences: Fences, *, max_bytes: int, max_rows: int,
        allowance: ReadAllowance,
    ) -> QueryPage:  # fmt: skip
        """Answer ``query``, which is checked, from the rows within ``fences``, all of it in one snapshot.

        Raises:
            QueryError: Unknown field or operator, or the allowed time is over; then it has a cause.
            Overloaded: Too many reads of the database have not ended.
        """
        ...

    async def compact(self, *, keep: int, keep_ms: int, clients_ms: int, force: bool = False) -> CompactReport:
        """Raise the floors so that at most ``keep`` transactions stay per scope, and remove what nobody can ask for any more.

        Args:
            keep: Number of transactions to keep.
            keep_ms: Milliseconds for which answers to direct writes and confirmed outcomes are kept. For an answer whose key does
                not tell its age, the fact that the key was used stays for ever.
            clients_ms: Milliseconds for which clients are kept after their last contact; of others, only the fact that they existed stays.
            force: Remove them although every answer, or every client, would go.

        Raises:
            ClockAhead: All of a kind would go, the last contact is days old, and ``force`` is false.
        """
        ...

    async def epochs(self) -> Sequence[EndedEpoch]:
        """Return every epoch that has ended, oldest first."""
        ...

    async def absent(self, epoch: bytes) -> Sequence[ClientState]:
        """Return the clients that have not opened a session since ``epoch`` ended, the longest absent first; their number is bounded."""
        ...

    async def permit(self, epoch: bytes, what: Permission) -> bool:
        """Give devices the permission ``what`` for what came after the end of ``epoch``; False if no such epoch has ended."""
        ...

    async def unfinished(self) -> Sequence[str]:
        """Scopes with a transaction behind their head, which an older version has written by half; cheap."""
        ...

    async def put_off(self) -> Sequence[bytes]:
        """Ended epochs with ``deletes_put_off``: allowed, and to be carried out by a hub that knows what devices may see."""
        ...

    async def traced(self) -> Sequence[tuple[str, bytes]]:
        """Scopes with the epochs of which devices have brought rows back."""
        ...

    async def renew_epoch(self, devices: DevicePolicy) -> HubIdentity:
        """End the epoch at the present heads and begin a new one; ``devices`` is about what came after that end.

        A store that detects by itself that the file is not the one that ran last does the same when it opens, except for
        deletions, which wait for :meth:`permit`.
        """
        ...


@runtime_checkable
class HubStore(Protocol):
    """A hub database that is not open yet."""

    def open_hub_database(self, schema: Schema, environment: Environment) -> AbstractAsyncContextManager[HubDatabase]:
        """Open or create it for ``schema``, alone or together with other processes of the hub, as the store supports.

        Raises:
            StoreBusy: The store is for one process, and another one has it open; or the database accepts no connections now.
            MigrationError: It is newer than the code, or a change is not additive.
            StoreCorrupt: It is damaged, or is not a hub's database.
        """
        ...
