"""``SQLiteHubStore``: a hub's database in one SQLite file."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import TypeVar

import apsw

from atoma.contracts.boots import BOOT_BYTES
from atoma.contracts.query import BoundQuery
from atoma.contracts.sync import DevicePolicy
from atoma.errors import ConfigurationError
from atoma.ports.environment import Environment
from atoma.ports.hub import Decision, HubIdentity, WritePlan
from atoma.ports.hub_queries import Fences, QueryPage, ReadAllowance
from atoma.schema.schema import Schema
from atoma_stores.sql.dialect import SQLITE
from atoma_stores.sql.hub import epochs
from atoma_stores.sql.hub.database import ScriptedHubDatabase
from atoma_stores.sql.hub.groups import GroupQueries
from atoma_stores.sql.hub.noting import noted_read
from atoma_stores.sql.hub.state import Run
from atoma_stores.sql.scripts import Script
from atoma_stores.sqlite._writer import Joint
from atoma_stores.sqlite.connections import MEMORY
from atoma_stores.sqlite.copies import copy_before_steps
from atoma_stores.sqlite.database import Database, open_database
from atoma_stores.sqlite.ddl import check_ours, prepare_file
from atoma_stores.sqlite.hub_driver import ADDITIONS, INTERNALS, GroupWriter, drive
from atoma_stores.sqlite.hub_lock import sole_hub
from atoma_stores.sqlite.hub_witness import HubWitness, refuse_others

T = TypeVar("T")


class SQLiteHubDatabase(ScriptedHubDatabase):
    """An open hub file; made by :meth:`SQLiteHubStore.open_hub_database`."""

    def __init__(
        self, database: Database, schema: Schema, identity: HubIdentity, witness: HubWitness | None = None
    ) -> None:
        super().__init__(SQLITE, schema, database.environment, identity)
        self._database = database
        self._witness = witness
        self._groups = GroupWriter(GroupQueries(SQLITE, self._stores))

    @property
    def unknown_functions(self) -> frozenset[str]:
        """None: SQLite's connections know all of them."""
        return frozenset()

    @property
    def database(self) -> Database:
        """The file, for figures and for tests."""
        return self._database

    async def run(
        self, decisions: Sequence[Decision], on_commit: Callable[[Sequence[WritePlan]], None] | None = None
    ) -> Sequence[WritePlan]:
        """Load, decide and carry out ``decisions`` in one FULL transaction, grouped with those of other callers."""
        body = Joint(self._groups.write, Run(decisions, self._environment.wall_ms()))

        def committed(run: Run) -> None:
            self._note(run.commits)
            if run.notes is not None:
                run.notes.note_commit(SQLITE.system)
            if on_commit is not None:
                on_commit(run.plans)

        run = await self._database.transact(body, durability="full", on_commit=committed, bulk=len(decisions) > 1)
        return run.plans

    def _note(self, commits: int) -> None:
        """Write to the lock file how far the file has come, after it has."""
        if self._witness is not None and commits:
            self._witness.note(self._identity.epoch, commits)

    def follow(
        self, listener: Callable[[Mapping[str, int]], None], watched: Callable[[], Sequence[str]]
    ) -> AbstractAsyncContextManager[None]:
        """Do nothing: no other process has the file."""
        return nullcontext()

    async def lookup(self, query: BoundQuery, fences: Fences, *, max_bytes: int, max_rows: int) -> QueryPage | None:
        """Rows within these fences only, on the loop's thread; None when it takes more than half a millisecond."""
        return await self._database.read_at_once(_noted(self._asked(query, fences, max_bytes, max_rows)))

    async def renew_epoch(self, devices: DevicePolicy) -> HubIdentity:
        """Mint a new epoch, and write it to the lock file."""
        commits = await self._end_epoch(devices)
        if self._witness is not None:
            self._witness.note(self._identity.epoch, commits)
            self._witness.write()
        return self._identity

    async def _read(self, script: Callable[[], Script[T]]) -> T:
        return await self._database.read(_noted(script))

    async def _read_within(self, script: Callable[[], Script[T]], allowance: ReadAllowance) -> T:
        # never on the loop's thread where there is another
        return await self._database.read_within(_noted(script), allowance.seconds, allowance.spent)

    async def _write(self, script: Callable[[], Script[T]], *, bulk: bool = False) -> T:
        return await self._database.transact(_body(script), durability="full", bulk=bulk)


def _body(script: Callable[[], Script[T]]) -> Callable[[apsw.Connection], T]:
    """What runs the script from its beginning, as often as it is called."""
    return lambda connection: drive(connection, script())


def _noted(script: Callable[[], Script[T]]) -> Callable[[apsw.Connection], T]:
    """:func:`_body` of a script that reads for a call."""
    return _body(noted_read(script, SQLITE))


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
            MigrationError: The file is newer than the code, or a change of the schema needs a step.
            StoreCorrupt: The file is damaged, or is none of a hub.
        """
        witness: HubWitness | None = None

        def prepare(connection: apsw.Connection) -> tuple[HubIdentity, int]:
            check_ours(connection)
            prepare_file(connection, schema, layout="hub", internals=INTERNALS, additions=ADDITIONS)
            where = f"{connection.filename or MEMORY}: "
            identity, commits = drive(connection, epochs.load_identity(SQLITE, environment, where))
            drive(connection, epochs.note_boot(SQLITE, environment.random.randbytes(BOOT_BYTES)))
            ended = [past.epoch for past in drive(connection, epochs.ended_epochs(SQLITE))]
            if witness is not None and witness.is_another(identity.epoch, ended, commits):
                epoch = epochs.mint_epoch(environment)
                ending = epochs.end_epoch(SQLITE, epoch, environment.wall_ms(), "offer", deletes=False)
                return replace(identity, epoch=epoch), drive(connection, ending)
            return identity, commits

        with ExitStack() as stack:
            if self._path != MEMORY:
                refuse_others(self._path, self._vfs)
                witness = HubWitness(self._path, stack.enter_context(sole_hub(self._path)), self._vfs, environment)
                witness.set_foreign_log_aside()
                stack.callback(witness.close)  # once the file is closed
            seen = None if witness is None else witness.main.after_checkpoint
            async with open_database(
                self._path, environment=environment, durability="full", vfs=self._vfs, on_checkpoint=seen
            ) as database:
                if schema.steps:
                    await database.read_in_pool(
                        lambda connection: copy_before_steps(connection, schema, self._vfs, None)
                    )
                identity, commits = await database.transact(prepare, durability="full", bulk=bool(schema.steps))
                if witness is not None:
                    witness.note(identity.epoch, commits)
                    witness.write()
                yield SQLiteHubDatabase(database, schema, identity, witness)
