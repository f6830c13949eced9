"""What the lanes share: the database, the way to write into it, the schema, the status board, the bells."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar, cast

import trio
from msgspec.structs import replace

from atoma.concurrency.backoff import Backoff
from atoma.contracts.events import Event
from atoma.contracts.execution import Durability
from atoma.contracts.replica import Portion, RepairReport
from atoma.contracts.sync import OpenReply, Outcome
from atoma.contracts.values import ErrorInfo
from atoma.contracts.writeback import ConfirmedRow, Writeback
from atoma.errors import ChannelBroken, Overloaded, RemoteError
from atoma.ports.engine import Lead, LocalDatabase
from atoma.ports.environment import Environment
from atoma.ports.execution import ApplyPort
from atoma.query.shapes import Shapes
from atoma.schema.schema import Schema
from atoma.sync.outbox import PushState
from atoma.sync.policies import HubLossPolicy
from atoma.sync.position import Position
from atoma.sync.scopes import PullSchedule, ReplicatedScopes
from atoma.sync.settle import Settlement
from atoma.sync.staging import Fenced, ReplicaChange, SnapshotBegun
from atoma.sync.status import ScopeProgress, StatusBoard
from atoma.sync.wake import Bell, Wake

R = TypeVar("R")

BACKOFF = Backoff(0.5, max_s=60.0)
"""Waits between the tries of a lane, and of a session."""
CALL_S = 30.0
"""Bound on one call to the hub, in seconds."""
CONNECT_S = 20.0
"""Bound on connecting and authenticating, in seconds."""


@dataclass(frozen=True, slots=True)
class RepairOrder:
    """A request by somebody to the next session.

    Attributes:
        adopt: Hand the file over to the hub and the principal that it is opened with, if they are others.
        rehearsal: Only tell what a repair would do.
    """

    adopt: bool = False
    rehearsal: bool = False


@dataclass(slots=True)
class RepairHistory:
    """Repairs of this file since the client was opened.

    Attributes:
        suspected: Why the hub refused this file in the last session, ``""`` when it did not.
        manual: Whether a repair waits until somebody asks for it.
        order: What somebody asks the next session for.
        told: What that session has to tell.
    """

    suspected: str = ""
    manual: bool = False
    order: RepairOrder | None = None
    told: RepairReport | None = None


@dataclass(frozen=True, slots=True)
class Replica:
    """One client's side of replication, without a connection.

    Attributes:
        database: Where state is read.
        apply: The one way state is written.
        environment: Clock, wall clock, randomness.
        schema: The declared stores.
        stores: Names of the stores that replicate.
        replicated: The scopes that replicate; they may come and go.
        shapes: What the schema declares of parts of scopes.
        board: The status, for everybody to see.
        position: Where the file is, as the status shows it.
        emit: Tells the client's listeners.
        bell: Rung at every change of the status and after every round of a lane.
        push_wake: Rung when there may be something to push.
        push_state: What a write may know of the push lane.
        repairs: What was repaired.
        on_hub_loss: What to do with what a restored hub has lost, where the operator leaves the choice.
        program: The number of this program among those at the file.
        lead: Which of the programs at this file runs the lanes; None where there can be no other.
    """

    database: LocalDatabase
    apply: ApplyPort
    environment: Environment
    schema: Schema
    stores: frozenset[str]
    replicated: ReplicatedScopes
    shapes: Shapes
    board: StatusBoard
    position: Position
    emit: Callable[[Event], None]
    bell: Bell
    push_wake: Wake = field(default_factory=Wake)
    push_state: PushState = field(default_factory=PushState)
    repairs: RepairHistory = field(default_factory=RepairHistory)
    on_hub_loss: HubLossPolicy = "offer"
    program: int = 0
    lead: Lead | None = None

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that replicate now."""
        return self.replicated.every

    def schedule(self, scope: str) -> PullSchedule:
        """When ``scope`` is looked at."""
        return self.replicated.schedule(scope)

    def version_told(self, reply: OpenReply) -> int:
        """What requests say of this client's version: 0, the hub's own, unless the hub's is later."""
        return self.schema.version if reply.schema_version > self.schema.version else 0

    async def change(
        self,
        change: ReplicaChange[R],
        *,
        rows: Sequence[ConfirmedRow] = (),
        verdicts: Mapping[str, Outcome] = MappingProxyType({}),
        durability: Durability | None = None,
        fenced: bool = True,
        short: bool = False,
    ) -> R:
        """Change something with ``rows`` and ``verdicts`` in one local transaction; what came of it.

        What is not ``fenced`` is done whichever program runs the lanes; ``short`` as in :class:`Writeback`.

        Raises:
            StoreError: The engine failed; nothing has changed.
            LeadLost: Another program runs the lanes by now; nothing has changed.
        """
        term = 0 if self.lead is None or not fenced else self.lead.term
        asked = Fenced(change, term) if term else change
        writeback = Writeback(rows=rows, verdicts=verdicts, replication=asked, durability=durability, short=short)
        return cast("R", (await self.apply.apply_writeback(writeback)).told)

    async def begin_snapshot(self, scope: str, *, empty: bool = False) -> None:
        """Have ``scope`` staged anew; see :class:`SnapshotBegun`."""
        if not await self.change(SnapshotBegun(scope, empty=empty, fixed=scope in self.replicated.fixed)):
            await self.refresh()  # another program has dropped it, and that is not told here yet

    def due_ms(self, delay_s: float) -> int:
        """When an attempt is made for which so many seconds are waited from now on, by the wall clock in milliseconds."""
        return self.environment.wall_ms() + int(delay_s * 1000)

    def poke_pull(self, scopes: Iterable[str]) -> None:
        """Let the pull lanes of ``scopes`` look at once."""
        here = self.scopes
        for scope in scopes:
            if scope in here:
                self.schedule(scope).wake.poke()

    def progress(self, scope: str) -> ScopeProgress:
        """The progress of ``scope`` as shown."""
        return self.position.progress(scope)

    def show_head(self, scope: str, head: int) -> None:
        """Show that the hub has told of ``head``; a hint that moves no cursor."""
        if head > self.progress(scope).head:
            self.show_opening(scope, head)

    def show_opening(self, scope: str, head: int) -> None:
        """Show that the head is ``head`` as a session opens: lower than before where the hub was restored."""
        self.position.show(replace(self.progress(scope), head=head))

    def show_scope_error(self, scope: str, error: ErrorInfo | None) -> None:
        """Show why a scope does not move, or that it does again."""
        self.position.show(replace(self.progress(scope), error=error))

    async def refresh(self) -> None:
        """Read of the file where it is: what other programs do to it is told by nobody."""
        await self.position.read()

    async def show_file(self) -> None:
        """See that what is shown is not behind the file, in which a commit is a moment before it is told."""
        if await self.database.inspect(lambda tx: tx.commit) > self.position.commit:
            await self.refresh()

    def show_now(self) -> None:
        """Show every scope anew, and tell everybody before this returns."""
        self.position.show_all()
        self.board.publish()

    def error_of(self, portion: Portion) -> ErrorInfo | None:
        """Why ``portion`` does not move, None when it does."""
        refused = self.replicated.refused.get(portion.scope, {})
        return refused.get(portion.shape) or self.progress(portion.scope).error

    def settled(self, work: Settlement) -> None:
        """Tell listeners what a committed transaction settled, and fetch the pages that acceptances wait for."""
        for conflict in work.conflicts:
            self.emit(conflict)
        self.poke_pull(sorted(work.accepted))


@contextmanager
def bounded(what: str, seconds: float = CALL_S) -> Generator[None]:
    """Turn a call that takes longer than ``seconds`` into a broken connection, so that nothing waits for ever.

    One that finds no room on its own connection, which others use as well, is one that the hub has no room for: it is made again.
    """
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise ChannelBroken(f"the hub did not answer {what} within {seconds:g} s") from None
    except Overloaded as error:
        raise RemoteError(str(error), remote_code=error.code) from None
