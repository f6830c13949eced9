"""``PostgreSQLHubStore``: a hub's database on PostgreSQL, shared by any number of equal processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from atoma.contracts.progress import Progress
from atoma.errors import ConfigurationError
from atoma.ports.environment import Environment
from atoma.ports.hub import HubIdentity
from atoma.ports.tasks import open_tasks
from atoma.schema.schema import Schema
from atoma_stores.postgres.codes import ConnectionLost, ServerError, translate
from atoma_stores.postgres.connection import SETTINGS, Connection, connect, parse
from atoma_stores.postgres.database import PostgreSQLHubDatabase
from atoma_stores.postgres.ddl import held_version, prepare
from atoma_stores.postgres.faults import NO_FAULTS, Faults
from atoma_stores.postgres.fence import JOIN, check_known
from atoma_stores.postgres.lanes import AGAIN_S
from atoma_stores.postgres.lineage import differs, follow_server
from atoma_stores.postgres.pool import COMMIT, ROLLBACK, Pool, Pools, read, write
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.hub.migrating import CONVERTED, read_heads
from atoma_stores.sql.hub.rows import StoreSql, stores_of
from atoma_stores.sql.hub.verifying import ChainHash, Verification, verify
from atoma_stores.sql.migrating import ConversionProgress, MigrationReport, log_progress
from atoma_stores.sql.scripts import Execute, Script

T = TypeVar("T")

READERS_MAX = 8
VERIFY_MS = 3_600_000
"""Maximum duration of a verification's statement, in milliseconds."""
STANDBY = "55000"
_CONVERTED = POSTGRESQL.render("SELECT m.value FROM {meta} m WHERE m.key={p1}")


class PostgreSQLHubStore:
    """A hub's database on PostgreSQL 15 or later, for any number of concurrent hub processes.

    Args:
        dsn: Its address in libpq's form: ``postgresql://user@host/database``. The database holds one hub.
        readers: Maximum number of connections that read. A process has up to ``readers + 2 * writers + 3`` connections.
        writers: Number of lanes that write; a scope always uses the same one. More than one helps if the round trip to the database is
            long, at the cost of smaller groups.
        faults: Faults to inject into the connections; for tests.

    Raises:
        ConfigurationError: The address is empty, or a number is too small.
    """

    __slots__ = ("_dsn", "_faults", "_readers", "_writers")

    def __init__(self, dsn: str, *, readers: int = READERS_MAX, writers: int = 1, faults: Faults | None = None) -> None:
        if not dsn:
            raise ConfigurationError(
                "PostgreSQLHubStore() needs the address of a database: postgresql://user@host/database"
            )
        parse(dsn)
        if readers < 2 or writers < 1:
            raise ConfigurationError("PostgreSQLHubStore() needs readers=2 or more, and writers=1 or more")
        self._dsn = dsn
        self._readers, self._writers = readers, writers
        self._faults = NO_FAULTS if faults is None else faults

    def __repr__(self) -> str:
        return f"PostgreSQLHubStore({self.where!r})"

    @property
    def where(self) -> str:
        """The address of the database, without its secrets."""
        asked = parse(self._dsn)
        return f"postgresql://{asked.get('host') or ''}/{asked.get('dbname') or ''}"

    @asynccontextmanager
    async def open_hub_database(
        self, schema: Schema, environment: Environment
    ) -> AsyncGenerator[PostgreSQLHubDatabase]:
        """Open or create the database; leaving the block writes what is waiting, for a bounded time.

        Raises:
            StoreBusy: The database cannot be reached or accepts no connections now, or migration steps are due while old processes run.
            MigrationError: It is newer than the code, or a change of the schema needs a step.
        """
        noted: list[Callable[[bytes], None]] = []

        async def checked() -> Connection:
            connection = await self._connect()
            try:
                await connection.trip([JOIN])
                await read(connection, check_known(schema.version))
                epoch = await self._follow_server(connection, environment)
            except BaseException:
                connection.close()
                raise
            if epoch is not None:
                for note in noted:
                    note(epoch)
            return connection

        pools = Pools(
            self.where, environment, self._connect,
            writing=Pool(checked, 2 * self._writers), reading=Pool(checked, self._readers), heads=Pool(checked, 2),
        )  # fmt: skip
        try:
            identity = await self._prepare(schema, environment)
            async with open_tasks() as nursery:
                database = PostgreSQLHubDatabase(schema, environment, identity, pools, writers=self._writers)
                noted.append(database.note_epoch)
                database.write_lanes(nursery)
                try:
                    yield database
                finally:
                    database.close()
        finally:
            pools.close()

    async def verify(self, schema: Schema, link: ChainHash, told: Progress) -> Verification:
        """Check the whole database in one snapshot, even while hubs serve it, and return what does not agree in it.

        Args:
            schema: The declared stores; nothing is created or changed.
            link: Computes the hash of a transaction.
            told: Called now and then with the number of transactions that were read, and the total.

        Raises:
            StoreError: The database cannot be reached, or holds no hub with these stores.
        """
        return await self._look(_verifying(stores_of(POSTGRESQL, schema), link, told), limit_ms=VERIFY_MS)

    async def held_version(self) -> int:
        """Return the schema version of the database, 0 if it holds no hub; nothing is created or changed.

        Raises:
            StoreError: The database cannot be reached.
        """
        return await self._look(held_version())

    async def migrate(
        self, schema: Schema, told: ConversionProgress = log_progress, *, plan: bool = False
    ) -> MigrationReport:
        """Migrate the database to ``schema``, as opening it would; with ``plan`` everything is rolled back.

        Args:
            schema: The stores of the application.
            told: Called with the progress.
            plan: Only say what would be done. The tables are locked meanwhile, as in a migration.

        Raises:
            StoreBusy: Migration steps are due while hub processes run; or the database cannot be reached.
            MigrationError: It is newer than the code, or a change needs a step.
        """
        environment, ending = Environment(), ROLLBACK if plan else COMMIT

        async def attempt(connection: Connection) -> MigrationReport:
            return (await write(connection, prepare(schema, environment, told), ending=ending)).report

        return await self._persist(environment, attempt)

    async def _look(self, script: Script[T], *, limit_ms: int = 0) -> T:
        """Run a script that reads over its own connection, and return its result."""
        try:
            connection = await self._connect()
            try:
                return await read(connection, script, limit_ms=limit_ms)
            finally:
                connection.close()
        except (ConnectionLost, ServerError) as error:
            raise translate(error, self.where) from error

    async def _connect(self) -> Connection:
        return await connect(self._dsn, SETTINGS, self._faults)

    async def _prepare(self, schema: Schema, environment: Environment) -> HubIdentity:
        async def attempt(connection: Connection) -> HubIdentity:
            identity = (await write(connection, prepare(schema, environment))).identity
            epoch = await self._follow_server(connection, environment)
            return identity if epoch is None else replace(identity, epoch=epoch)

        return await self._persist(environment, attempt)

    async def _persist(self, environment: Environment, attempt: Callable[[Connection], Awaitable[T]]) -> T:
        """Return the result of ``attempt`` over an unchecked connection; see :meth:`Pools.persist`."""
        unchecked = Pool(self._connect, 1)
        pools = Pools(self.where, environment, self._connect, writing=unchecked, reading=unchecked, heads=unchecked)

        async def once() -> T:
            async with unchecked.connection() as connection:
                return await attempt(connection)

        try:
            return await pools.persist(once, unchecked, AGAIN_S)
        finally:
            pools.close()

    async def _follow_server(self, connection: Connection, environment: Environment) -> bytes | None:
        """Begin a new epoch if the server's history may have changed, and return it; None if the history continues."""
        try:
            if not await read(connection, differs()):
                return None
            return await write(connection, follow_server(environment))
        except ServerError as error:
            if error.state == STANDBY:
                raise ConnectionLost("this server is a standby: it takes no writes") from error
            raise


def _verifying(stores: Mapping[str, StoreSql], link: ChainHash, told: Progress) -> Script[Verification]:
    """Run :func:`verify` with the position up to which steps have converted the log."""
    (rows,) = yield [Execute(_CONVERTED, (CONVERTED,))]
    converted = read_heads(str(rows[0][0]) if rows else "{}")
    return (yield from verify(POSTGRESQL, stores, link, converted, told))
