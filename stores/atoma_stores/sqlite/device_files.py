"""A device's file from outside its program: what is in it, and the wish for a new identity."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import apsw
from msgspec.structs import replace

from atoma.errors import MigrationError
from atoma.ports.environment import Environment
from atoma.ports.local import LocalTx
from atoma.schema.schema import Schema
from atoma_stores.sqlite._outbox import OutboxLimits
from atoma_stores.sqlite._units import EngineTx
from atoma_stores.sqlite.connections import open_existing, transaction
from atoma_stores.sqlite.ddl import is_guarded
from atoma_stores.sqlite.encryption import FileKey
from atoma_stores.sqlite.stored_schema import stored_schema

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredSync:
    """The replicating part of a file.

    Attributes:
        schema: Its stores; see :func:`atoma_stores.sqlite.stored_schema.stored_schema`.
        stores: Names of those that replicate.
        scopes: Scopes that it has replicated.
    """

    schema: Schema
    stores: Sequence[str]
    scopes: Sequence[str]


def read_sync(path: str, key: FileKey | None = None) -> StoredSync:
    """What of the file ``path`` replicates; it may be open elsewhere.

    Raises:
        StoreError: It is not a device's file, or cannot be read.
        ConfigurationError: There is none, or no store in it.
    """
    with _opened(path, key) as (connection, schema):
        stores = [name for name in schema.stores if is_guarded(connection, name)]
        scopes = [str(row[0]) for row in connection.execute("SELECT scope FROM _atoma_sub ORDER BY scope")]
        return StoredSync(schema, stores, scopes)


def inspect_file(path: str, body: Callable[[LocalTx], T], environment: Environment, key: FileKey | None = None) -> T:
    """Run ``body``, which only reads, in one read transaction on the file ``path``; it may be open elsewhere.

    Raises:
        StoreError: It is not a device's file, or cannot be read.
        MigrationError: An earlier version made it, and nothing has opened it since.
    """
    with _opened(path, key) as (connection, schema):
        try:
            with transaction(connection, "BEGIN", "ROLLBACK"):
                return body(EngineTx(connection, schema, {}, environment.wall_ms, OutboxLimits()))
        except apsw.SQLError as error:
            message = f"{path}: an earlier version has made it; open it once with its program ({error})"
            raise MigrationError(message) from error


def ask_renewal(path: str, key: FileKey | None = None) -> bool:
    """Have the file ``path`` take a new identity at its next contact with the hub; False when that is asked already.

    Raises:
        StoreError: It is not a device's file, or cannot be written.
    """
    with _opened(path, key, writing=True) as (connection, schema), transaction(connection, "BEGIN IMMEDIATE", "COMMIT"):
        tx = EngineTx(connection, schema, {}, lambda: 0, OutboxLimits())  # nothing that is written here has a time
        identity = tx.outbox.identity()
        tx.outbox.save_identity(replace(identity, renew=True))
        tx.finish(None, connection.total_changes())
        return not identity.renew


@contextmanager
def _opened(path: str, key: FileKey | None, *, writing: bool = False) -> Generator[tuple[apsw.Connection, Schema]]:
    """A connection to the file, and its stores."""
    with open_existing(path, writing=writing, key=key) as connection:
        yield connection, stored_schema(connection, "client")
