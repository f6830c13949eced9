"""``SQLiteHubStore``: a hub's database in one SQLite file."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import apsw

from atoma.contracts.query import BoundQuery
from atoma.contracts.sync import DevicePolicy, Place
from atoma.errors import ConfigurationError
from atoma.ports.environment import Environment
from atoma.ports.hub import (
    ClientState,
    CompactReport,
    EndedEpoch,
    HubIdentity,
    Lineage,
    LogPage,
    Permission,
    Plan,
    RowKey,
    ScanPage,
    ScopeState,
    Step,
)
from atoma.ports.hub_queries import QueryPage, ReadAllowance
from atoma.schema.spec import Schema
from atoma_stores.sqlite.connections import MEMORY
from atoma_stores.sqlite.database import Database, open_database
from atoma_stores.sqlite.ddl import check_ours, prepare_file
from atoma_stores.sqlite.hub_clients import forget_clients, forget_names
from atoma_stores.sqlite.hub_compaction import (
    batches,
    check_clock,
    forget_answers,
    raise_floors,
    raise_forgotten,
)
from atoma_stores.sqlite.hub_decisions import DecisionRun, NotTakenBack, read_scope
from atoma_stores.sqlite.hub_epochs import end_epoch, load_absent, load_epochs, load_traced, permit, read_commits
from atoma_stores.sqlite.hub_lock import sole_hub
from atoma_stores.sqlite.hub_reading import (
    read_lineage,
    read_located,
    read_page,
    read_query,
    read_scan,
    read_unfinished,
)
from atoma_stores.sqlite.hub_tables import ADDITIONS, IDENTITY_BYTES, TABLES, StoreStatements, load_identity
from atoma_stores.sqlite.hub_witness import HubWitness


class SQLiteHubDatabase:
    """An open hub file; made by :meth:`SQLiteHubStore.open_hub_database`."""

    def __init__(
        self, database: Database, schema: Schema, identity: HubIdentity, witness: HubWitness | None = None
    ) -> None:
        self._database = database
        self._witness = witness
        self._schema = schema
        self._identity = identity
        self._statements = {store.name: StoreStatements(store) for store in schema.stores.values()}

    @property
    def identity(self) -> HubIdentity:
        """Who the hub is."""
        return self._identity

    @property
    def database(self) -> Database:
        """The file, for figures and for tests."""
        return self._database

    async def run(
        self, steps: Sequence[Step], on_commit: Callable[[Sequence[Plan]], None] | None = None
    ) -> Sequence[Plan]:
        """Load, decide and carry out ``steps`` in one FULL transaction, grouped with those of other callers."""
        now_ms, bulk = self._database.environment.wall_ms(), len(steps) > 1

        def body(connection: apsw.Connection, *, careful: bool = False) -> tuple[list[Plan], int]:
            decisions = DecisionRun(connection, self._statements, now_ms, careful=careful)
            return decisions.run(steps), decisions.commits

        def committed(done: tuple[list[Plan], int]) -> None:
            self._note(done[1])
            if on_commit is not None:
                on_commit(done[0])

        try:
            plans, _ = await self._database.transact(body, durability="full", on_commit=committed, bulk=bulk)
        except NotTakenBack:
            again = partial(body, careful=True)
            plans, _ = await self._database.transact(again, durability="full", on_commit=committed, bulk=bulk)
        return plans

    def _note(self, commits: int) -> None:
        """Tell the lock file how far the file has come, after it has."""
        if self._witness is not None and commits:
            self._witness.note(self._identity.epoch, commits)

    async def page(
        self,
        scope: str,
        start: int,
        *,
        max_bytes: int,
        max_changes: int,
        client_id: bytes,
        principal: str,
        outcomes_after: int,
    ) -> LogPage:
        """The log after ``start`` with the client's outcomes."""

        def body(connection: apsw.Connection) -> LogPage:
            return read_page(
                connection,
                scope,
                start,
                max_bytes=max_bytes,
                max_changes=max_changes,
                client=(client_id, principal),
                outcomes_after=outcomes_after,
            )

        return await self._database.read(body)

    async def scan(
        self, scope: str, after: RowKey | None, *, max_bytes: int, max_rows: int, allowance: ReadAllowance
    ) -> ScanPage:
        """Rows after ``after``."""

        def body(connection: apsw.Connection) -> ScanPage:
            return read_scan(connection, self._statements, scope, after, max_bytes=max_bytes, max_rows=max_rows)

        return await self._database.read_within(body, allowance.seconds, allowance.spent)

    async def scopes(self, names: Sequence[str] | None = None) -> Sequence[ScopeState]:
        """States of scopes."""

        def body(connection: apsw.Connection) -> list[ScopeState]:
            wanted = names
            if wanted is None:
                wanted = [
                    str(row[0]) for row in connection.execute("SELECT scope FROM _atoma_hub_scope ORDER BY scope")
                ]
            return [read_scope(connection, name) for name in wanted]

        return await self._database.read(body)

    async def locate(self, store: str, ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Scopes that hold a row with each id."""
        spec = self._schema.stores.get(store)
        if spec is None:
            return {}
        return await self._database.read(lambda connection: read_located(connection, spec, ids))

    async def lookup(
        self, query: BoundQuery, scopes: Sequence[str] | None, *, max_bytes: int, max_rows: int
    ) -> QueryPage | None:
        """Rows of these scopes only, on the loop's thread; None when it takes more than half a millisecond."""
        return await self._database.read_at_once(self._reading(query, scopes, max_bytes, max_rows))

    async def query(
        self,
        query: BoundQuery,
        scopes: Sequence[str] | None,
        *,
        max_bytes: int,
        max_rows: int,
        allowance: ReadAllowance,
    ) -> QueryPage:
        """Rows of these scopes only, never on the loop's thread where there is another."""
        body = self._reading(query, scopes, max_bytes, max_rows)
        return await self._database.read_within(body, allowance.seconds, allowance.spent)

    def _reading(
        self, query: BoundQuery, scopes: Sequence[str] | None, max_bytes: int, max_rows: int
    ) -> Callable[[apsw.Connection], QueryPage]:
        schema = self._schema

        def body(connection: apsw.Connection) -> QueryPage:
            return read_query(connection, schema, query, scopes, max_bytes=max_bytes, max_rows=max_rows)

        return body

    async def lineages(self, places: Sequence[Place]) -> Sequence[Lineage]:
        """The scope of each place beside it, all in one snapshot."""
        return await self._database.read(lambda connection: [read_lineage(connection, place) for place in places])

    async def compact(self, *, keep: int, keep_ms: int, clients_ms: int, force: bool = False) -> CompactReport:
        """Raise the floors, then delete below them in batches."""
        now_ms = self._database.environment.wall_ms()
        before_ms = now_ms - keep_ms
        if not force:
            await self._database.read(
                lambda connection: check_clock(connection, now_ms, before_ms, now_ms - clients_ms)
            )
        floors = await self._database.transact(
            lambda connection: raise_floors(connection, keep, before_ms), durability="full"
        )
        await self._database.transact(lambda connection: raise_forgotten(connection, before_ms), durability="full")
        removed: dict[str, int] = {}
        for what, statement, bindings in batches(floors, before_ms):

            def body(connection: apsw.Connection, sql: str = statement, values: tuple[object, ...] = bindings) -> int:
                connection.execute(sql, values)
                return connection.changes()

            while count := await self._database.transact(body, durability="full", bulk=True):
                removed[what] = removed.get(what, 0) + count
        forgetting: tuple[tuple[str, Callable[[apsw.Connection], int]], ...] = (
            ("aliases", forget_names),
            ("answers", partial(forget_answers, before_ms=before_ms)),
            ("clients", partial(forget_clients, before_ms=now_ms - clients_ms)),
        )
        for what, some in forgetting:
            while count := await self._database.transact(some, durability="full", bulk=True):
                removed[what] = removed.get(what, 0) + count
        return CompactReport(**removed, floors=floors)

    async def renew_epoch(self, devices: DevicePolicy) -> HubIdentity:
        """Mint a new epoch."""
        environment = self._database.environment
        epoch, now_ms = environment.random.randbytes(IDENTITY_BYTES), environment.wall_ms()

        def body(connection: apsw.Connection) -> int:
            end_epoch(connection, epoch, now_ms, devices, deletes=True)
            return read_commits(connection)

        commits = await self._database.transact(body, durability="full")
        self._identity = HubIdentity(self._identity.hub_id, epoch, self._identity.key)
        if self._witness is not None:
            self._witness.note(epoch, commits)
            self._witness.write()
        return self._identity

    async def epochs(self) -> Sequence[EndedEpoch]:
        """Every epoch that has ended, oldest first."""
        return await self._database.read(load_epochs)

    async def absent(self, epoch: bytes) -> Sequence[ClientState]:
        """Clients that have not opened a session since ``epoch`` ended."""
        return await self._database.read(lambda connection: load_absent(connection, epoch))

    async def permit(self, epoch: bytes, what: Permission) -> bool:
        """Allow ``what`` about what came behind the end of ``epoch``; False when no such epoch has ended."""
        return await self._database.transact(lambda connection: permit(connection, epoch, what), durability="full")

    async def unfinished(self) -> Sequence[str]:
        """Scopes whose log goes beyond their head."""
        return await self._database.read(read_unfinished)

    async def traced(self) -> Sequence[tuple[str, bytes]]:
        """Scopes with the epochs of which devices have brought rows back."""
        return await self._database.read(load_traced)


class SQLiteHubStore:
    """A hub's database in one SQLite file, for exactly one hub at a time.

    Args:
        path: The file; ``":memory:"`` for a hub that forgets everything when it closes.
        vfs: Name of a registered SQLite VFS, None for the system's.

    Raises:
        ConfigurationError: The path is empty.
    """

    __slots__ = ("_path", "_vfs")

    def __init__(self, path: str | os.PathLike[str], *, vfs: str | None = None) -> None:
        self._path = os.fspath(path)
        if not self._path:
            raise ConfigurationError('SQLiteHubStore() needs the path of a file, or ":memory:"')
        self._vfs = vfs

    def __repr__(self) -> str:
        return f"SQLiteHubStore({self._path!r})"

    @asynccontextmanager
    async def open_hub_database(self, schema: Schema, environment: Environment) -> AsyncGenerator[SQLiteHubDatabase]:
        """Open or create the file and hold its lock inside the block.

        Raises:
            StoreBusy: Another hub is running on the file.
            MigrationError: The file is newer than the code, or a change of the schema is not additive.
            StoreCorrupt: The file is damaged, or is none of a hub.
        """
        witness: HubWitness | None = None

        def prepare(connection: apsw.Connection) -> tuple[HubIdentity, int]:
            check_ours(connection)
            prepare_file(connection, schema, layout="hub", internals=TABLES, additions=ADDITIONS)
            identity = load_identity(connection, environment)
            ended = [past.epoch for past in load_epochs(connection)]
            if witness is not None and witness.is_another(identity.epoch, ended, read_commits(connection)):
                epoch = environment.random.randbytes(IDENTITY_BYTES)
                end_epoch(connection, epoch, environment.wall_ms(), "offer", deletes=False)
                identity = HubIdentity(identity.hub_id, epoch, identity.key)
            return identity, read_commits(connection)

        with ExitStack() as stack:
            if self._path != MEMORY:
                witness = HubWitness(self._path, stack.enter_context(sole_hub(self._path)), self._vfs, environment)
                witness.set_foreign_log_aside()
                stack.callback(witness.close)  # once the file is closed
            seen = None if witness is None else witness.look
            async with open_database(
                self._path, environment=environment, durability="full", vfs=self._vfs, on_checkpoint=seen
            ) as database:
                identity, commits = await database.transact(prepare, durability="full")
                if witness is not None:
                    witness.note(identity.epoch, commits)
                    witness.write()
                yield SQLiteHubDatabase(database, schema, identity, witness)
