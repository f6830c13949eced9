"""Where a file is in replication: read once, moved by what each commit says that it has changed, and shown in the status."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio
from msgspec import Struct
from msgspec.structs import replace

from atoma.contracts.events import Event, ScopeBrought, ScopeLeft
from atoma.contracts.replica import BroughtScope, ClientIdentity, Portion, ReplicaDelta, Subscription
from atoma.contracts.shapes import read_call
from atoma.contracts.sync import Cursor
from atoma.errors import QueryError
from atoma.ports.engine import Commit, LocalDatabase
from atoma.ports.local import LocalTx
from atoma.query.shapes import Shapes
from atoma.sync.scopes import ReplicatedScopes
from atoma.sync.status import PartProgress, ScopeProgress, StatusBoard


class _Found(Struct, frozen=True):
    """What a file says of replication, as of one commit; nothing before the first reading."""

    commit: int = 0
    identity: ClientIdentity | None = None
    held: int = 0
    hurries: int = 0
    subscriptions: dict[str, Subscription] = {}
    brought: Sequence[BroughtScope] = ()

    def once(self, delta: ReplicaDelta) -> _Found:
        """The same with what a later commit has changed."""
        return replace(
            self,
            identity=self.identity if delta.identity is None else delta.identity,
            held=self.held if delta.held is None else delta.held,
            hurries=self.hurries if delta.hurries is None else delta.hurries,
            subscriptions={**self.subscriptions, **delta.scopes} if delta.scopes else self.subscriptions,
            brought=self.brought if delta.brought is None else delta.brought,
        )


class Position:
    """The position of a file in replication.

    The commits of this program say what they have changed of it, so that it is never older than one that its caller knows of.
    What other programs commit is read of the file; see :attr:`is_stale`.

    Args:
        database: Where it is read.
        replicated: The scopes that replicate.
        shapes: What the schema declares of parts of scopes.
        board: Where it is shown; everybody is told in the next pass of the loop.
        emit: Tells the client's listeners.

    Attributes:
        is_stale: Whether another program has committed since it was read.
    """

    def __init__(
        self,
        database: LocalDatabase,
        replicated: ReplicatedScopes,
        shapes: Shapes,
        board: StatusBoard,
        emit: Callable[[Event], None],
    ) -> None:
        self._database = database
        self._replicated = replicated
        self._shapes = shapes
        self._board = board
        self._emit = emit
        self.is_stale = False
        self._found = _Found()
        self._shown = {progress.scope: progress for progress in board.current.scopes}
        self._reading = trio.Lock()
        self._read = 0  # the commit that it was read at
        self._heard = 0  # the last commit that was told
        self._late: list[Commit] = []  # what was committed while it was being read

    # what the file says

    @property
    def identity(self) -> ClientIdentity | None:
        """Who the file is to the hub, and how far its outbox goes; None before the first reading."""
        return self._found.identity

    @property
    def hurries(self) -> int:
        """How often somebody has asked that what is queued be sent at once."""
        return self._found.hurries

    @property
    def commit(self) -> int:
        """The last commit of which it is known what it has changed here."""
        return max(self._heard, self._read)

    async def read(self) -> None:
        """Read it of the file."""
        async with self._reading:
            self._late = []
            self.is_stale = False
            try:
                found = await self._database.inspect(_find)
            except BaseException:
                self.is_stale = True
                raise
            self._read = found.commit
            for commit in self._late:  # taken over at once: what is here already would go and come again
                if commit.commit > self._read and commit.replica is not None:
                    found = found.once(commit.replica)
            self._take_over(found)

    def hear(self, commit: Commit) -> None:
        """Go by what ``commit`` has changed."""
        if commit.commit <= self._read:
            return
        if not commit.is_own or commit.commit > self._heard + 1:
            self.is_stale = True
        self._heard = commit.commit
        if commit.replica is not None:
            if self._reading.locked():
                self._late.append(commit)
            self._move(commit.replica)

    def _take_over(self, found: _Found) -> None:
        self._heard = max(self._heard, self._read)
        self._found = found
        self._bring(found.brought)
        self.show_all()

    def _move(self, delta: ReplicaDelta) -> None:
        self._found = self._found.once(delta)
        if delta.brought is not None:
            self._bring(delta.brought)
            self.show_all()
            return
        for scope in delta.scopes:
            if scope in self._shown:
                self._shown[scope] = self._progress(scope)
        self._note(scopes=bool(delta.scopes))

    def _bring(self, found: Sequence[BroughtScope]) -> None:
        """Take over what was brought along, and tell what has come and gone."""
        new, gone = self._replicated.read(found)
        for scope in gone:
            self._emit(ScopeLeft(scope))
        for scope in new:
            self._emit(ScopeBrought(scope))

    # what is shown

    def progress(self, scope: str) -> ScopeProgress:
        """The progress of ``scope`` as shown; a fresh one when it is not synced."""
        return self._shown.get(scope) or ScopeProgress(scope)

    def show(self, progress: ScopeProgress) -> None:
        """Show the progress of one scope, if it replicates."""
        if progress.scope in self._shown:
            self._shown[progress.scope] = progress
            self._note(scopes=True)

    def show_all(self) -> None:
        """Show every scope anew, after something beside the file has changed: what the hub gives out, what is leaving."""
        self._shown = {scope: self._progress(scope) for scope in self._replicated.every}
        self._note(scopes=True)

    def _note(self, *, scopes: bool) -> None:
        board, identity = self._board, self.identity
        shown = board.current
        board.note(
            replace(
                shown,
                pending=0 if identity is None else identity.next_mid - 1 - identity.confirmed_mid,
                held=self._found.held,
                scopes=tuple(self._shown.values()) if scopes else shown.scopes,
            )
        )

    def _progress(self, scope: str) -> ScopeProgress:
        """The progress of ``scope`` by what is known of it."""
        shown, replicated = self.progress(scope), self._replicated
        at = self._found.subscriptions.get(scope) or Subscription(scope)
        replicated.note(replicated.shapes(scope))
        return replace(
            shown,
            state=at.state,
            cursor=at.cursor.seq,
            head=max(shown.head, at.cursor.seq),
            brought=scope not in replicated.fixed,
            parts=tuple(self._parts(at)),
            narrowed=replicated.within(at.cursor.view) is not None,
        )

    def _parts(self, at: Subscription) -> Iterable[PartProgress]:
        """The parts in which a scope is wanted."""
        replicated = self._replicated
        within = replicated.within(at.cursor.view)
        refused = replicated.refused.get(at.scope, {})
        for portion in replicated.portions(at.scope):
            if portion.shape:
                here = at.cursor != Cursor() and (within is None or portion.shape in within)
                yield PartProgress(portion.shape, self._title(portion), here, refused.get(portion.shape))

    def _title(self, portion: Portion) -> str:
        try:
            return self._shapes.read(portion.shape).title
        except QueryError:  # an earlier version of the program has brought it along
            return read_call(portion.shape).name


def _find(tx: LocalTx) -> _Found:
    outbox, scopes = tx.outbox, tx.scopes
    return _Found(
        tx.commit,
        outbox.identity(),
        outbox.held_count(),
        outbox.hurries(),
        {scope: scopes.read(scope) for scope in scopes.every()},
        scopes.brought(),
    )
