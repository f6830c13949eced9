"""Where the hub of a test lives: in SQLite files, or in databases of a PostgreSQL of the tests' own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import apsw

from atoma.ports.hub import HubStore
from atoma_stores.sql.dialect import POSTGRESQL, SQLITE
from atoma_stores.sqlite import SQLiteHubStore
from tests.postgres import database

Found = list[tuple[object, ...]]


class Home(Protocol):
    """A place for hubs. The same name is the same database, every time."""

    def store(self, name: str = "hub") -> HubStore:
        """A store on the database of that name."""
        ...

    def ask(self, template: str, name: str = "hub") -> Found:
        """What a statement gives; the hub's tables stand in braces, as the dialects want it."""
        ...

    def copy(self, name: str, to: str) -> None:
        """Make the database ``to`` what ``name`` is now; no hub may run on either."""
        ...


class SQLiteHome:
    """Files in a folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def store(self, name: str = "hub") -> HubStore:
        return SQLiteHubStore(self._folder / f"{name}.db")

    def ask(self, template: str, name: str = "hub") -> Found:
        connection = apsw.Connection(str(self._folder / f"{name}.db"))
        connection.set_busy_timeout(5_000)
        try:
            return list(connection.execute(SQLITE.render(template)))
        finally:
            connection.close()

    def copy(self, name: str, to: str) -> None:
        shutil.copy(self._folder / f"{name}.db", self._folder / f"{to}.db")


class PostgreSQLHome:
    """Databases of the tests' server, removed with the stack.

    Args:
        stack: Ends with the test.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._addresses = {"hub": stack.enter_context(database())}

    def address(self, name: str = "hub") -> str:
        """The address of the database of that name."""
        if name not in self._addresses:
            self._addresses[name] = self._stack.enter_context(database())
        return self._addresses[name]

    def store(self, name: str = "hub") -> HubStore:
        from atoma_stores.postgres import PostgreSQLHubStore

        return PostgreSQLHubStore(self.address(name))

    def ask(self, template: str, name: str = "hub") -> Found:
        import psycopg

        with psycopg.connect(self.address(name), autocommit=True) as connection:
            cursor = connection.execute(POSTGRESQL.render(template).encode())
            return cursor.fetchall() if cursor.description else []

    def copy(self, name: str, to: str) -> None:
        source = self.address(name).partition("@/")[2].partition("?")[0]
        self._addresses[to] = self._stack.enter_context(database(source))


@contextlib.contextmanager
def home_of(kind: str, folder: Path) -> Iterator[Home]:
    """The home of a test; skips the test where there is no PostgreSQL."""
    with contextlib.ExitStack() as stack:
        yield SQLiteHome(folder) if kind == "sqlite" else PostgreSQLHome(stack)


def is_sqlite(home: Home) -> bool:
    """Whether it is one of files."""
    return isinstance(home, SQLiteHome)
