"""The hub's own tables, who it is, and the SQL that depends on a store."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import cast

import apsw

from atoma.contracts.values import RowImage, Scalar
from atoma.errors import MigrationError
from atoma.ports.environment import Environment
from atoma.ports.hub import HubIdentity
from atoma.schema.spec import StoreSpec
from atoma_stores.sql.names import quote

HUB_FORMAT = 1
KEY_BYTES = 32
IDENTITY_BYTES = 16

TABLES: tuple[str, ...] = (
    """CREATE TABLE IF NOT EXISTS _atoma_hub_info(one INTEGER PRIMARY KEY CHECK(one=1), hub_id BLOB NOT NULL,
        epoch BLOB NOT NULL, key BLOB NOT NULL, format INTEGER NOT NULL) STRICT""",
    """CREATE TABLE IF NOT EXISTS _atoma_hub_scope(scope TEXT PRIMARY KEY, head INTEGER NOT NULL, head_hash BLOB NOT NULL,
        floor INTEGER NOT NULL, floor_hash BLOB NOT NULL) STRICT, WITHOUT ROWID""",
    # author: number of the client, 0 for a direct write
    """CREATE TABLE IF NOT EXISTS _atoma_hub_tx(scope TEXT, seq INTEGER, hash BLOB NOT NULL, author INTEGER NOT NULL,
        mid INTEGER NOT NULL, principal TEXT NOT NULL, committed_ms INTEGER NOT NULL, n INTEGER NOT NULL,
        bytes INTEGER NOT NULL, PRIMARY KEY(scope, seq)) STRICT, WITHOUT ROWID""",
    # fields: JSON list of the columns that changed, NULL for all; pre and post: msgpack, NULL for absent
    """CREATE TABLE IF NOT EXISTS _atoma_hub_change(scope TEXT, seq INTEGER, idx INTEGER, store TEXT NOT NULL,
        id TEXT NOT NULL, author INTEGER NOT NULL, fields TEXT, pre BLOB, post BLOB,
        PRIMARY KEY(scope, seq, idx)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS _atoma_hub_change_row ON _atoma_hub_change(scope, store, id, seq)",
    """CREATE TABLE IF NOT EXISTS _atoma_hub_tombstone(scope TEXT, store TEXT, id TEXT, seq INTEGER NOT NULL,
        author INTEGER NOT NULL, last BLOB NOT NULL, PRIMARY KEY(scope, store, id)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS _atoma_hub_tombstone_seq ON _atoma_hub_tombstone(scope, seq)",
    """CREATE TABLE IF NOT EXISTS _atoma_hub_client(number INTEGER PRIMARY KEY AUTOINCREMENT, client_id BLOB NOT NULL
        UNIQUE, incarnation INTEGER NOT NULL, principal TEXT NOT NULL, last_mid INTEGER NOT NULL, last_digest BLOB NOT NULL,
        confirmed_mid INTEGER NOT NULL, seen_ms INTEGER NOT NULL) STRICT""",
    "CREATE INDEX IF NOT EXISTS _atoma_hub_client_of ON _atoma_hub_client(principal)",
    # detail: msgpack of the error and the conflicts, NULL when there are none
    """CREATE TABLE IF NOT EXISTS _atoma_hub_outcome(client INTEGER, mid INTEGER, status TEXT NOT NULL, scope TEXT NOT NULL,
        seq INTEGER NOT NULL, digest BLOB NOT NULL, detail BLOB, at_ms INTEGER NOT NULL,
        PRIMARY KEY(client, mid)) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS _atoma_hub_idem(principal TEXT, idem TEXT, outcome BLOB NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY(principal, idem)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS _atoma_hub_idem_age ON _atoma_hub_idem(at_ms)",
    # later names of mutations that were numbered anew: the digest they had first, and the number they were decided under
    """CREATE TABLE IF NOT EXISTS _atoma_hub_alias(digest BLOB PRIMARY KEY, client INTEGER NOT NULL, mid INTEGER NOT NULL)
        STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS _atoma_hub_alias_of ON _atoma_hub_alias(client)",
    # offers of a lost history, by the epoch it was: the position a row was offered from, and the row's sequence then
    """CREATE TABLE IF NOT EXISTS _atoma_hub_trace(scope TEXT, epoch BLOB, store TEXT, id TEXT, position INTEGER NOT NULL,
        seq INTEGER NOT NULL, PRIMARY KEY(scope, epoch, store, id)) STRICT, WITHOUT ROWID""",
    # everything up to this position of a lost history has been offered
    """CREATE TABLE IF NOT EXISTS _atoma_hub_recovered(scope TEXT, epoch BLOB, position INTEGER NOT NULL,
        PRIMARY KEY(scope, epoch)) STRICT, WITHOUT ROWID""",
    # clients that were forgotten, and first digests of mutations that were decided under later names, so that they are not
    # taken for new ones; and how many, those not kept here included
    """CREATE TABLE IF NOT EXISTS _atoma_hub_expired(client BLOB PRIMARY KEY) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS _atoma_hub_expired_count(principal TEXT PRIMARY KEY, n INTEGER NOT NULL)
        STRICT, WITHOUT ROWID""",
    # keys that do not tell their age and whose answers were deleted, so that they are not taken for new ones
    """CREATE TABLE IF NOT EXISTS _atoma_hub_spent(key BLOB PRIMARY KEY) STRICT, WITHOUT ROWID""",
    # every epoch that has ended, and the heads of its scopes at that moment: so far is the history the same as now
    """CREATE TABLE IF NOT EXISTS _atoma_hub_epoch(number INTEGER PRIMARY KEY, epoch BLOB NOT NULL UNIQUE,
        ended_ms INTEGER NOT NULL) STRICT""",
    """CREATE TABLE IF NOT EXISTS _atoma_hub_epoch_end(scope TEXT, epoch INTEGER, head INTEGER NOT NULL,
        PRIMARY KEY(scope, epoch)) STRICT, WITHOUT ROWID""",
    # before_ms: answers to keys that were drawn before this time may have been deleted; absent while none was
    """CREATE TABLE IF NOT EXISTS _atoma_hub_forgotten(one INTEGER PRIMARY KEY CHECK(one=1), before_ms INTEGER NOT NULL)
        STRICT""",
)

ADDITIONS = (
    ("_atoma_hub_tombstone", "other_seq INTEGER"),  # as in a store's rows
    ("_atoma_hub_epoch", "devices TEXT NOT NULL DEFAULT 'offer'"),
    # whether devices may delete rows that the hub still has
    ("_atoma_hub_epoch", "deletes INTEGER NOT NULL DEFAULT 1"),
    # whether what nothing proves is taken as well
    ("_atoma_hub_epoch", "unproven INTEGER NOT NULL DEFAULT 0"),
    # whether the hub had the row before anybody offered it
    ("_atoma_hub_trace", "survivor INTEGER NOT NULL DEFAULT 0"),
    ("_atoma_hub_info", "commits INTEGER NOT NULL DEFAULT 0"),
)


def load_identity(connection: apsw.Connection, environment: Environment) -> HubIdentity:
    """Who the hub is; minted when the file is new. The caller is in a write transaction.

    Raises:
        MigrationError: The hub's tables are newer than the code.
    """
    row = connection.execute("SELECT hub_id, epoch, key, format FROM _atoma_hub_info").fetchone()
    if row is None:
        mint = environment.random.randbytes
        row = (mint(IDENTITY_BYTES), mint(IDENTITY_BYTES), mint(KEY_BYTES), HUB_FORMAT)
        connection.execute("INSERT INTO _atoma_hub_info(one, hub_id, epoch, key, format) VALUES(1,?,?,?,?)", row)
    hub_id, epoch, key, found = row
    if not isinstance(found, int) or found > HUB_FORMAT:
        where = connection.filename or ":memory:"
        raise MigrationError(
            f"{where}: hub format {found} is newer than this program's {HUB_FORMAT}; update the program"
        )
    return HubIdentity(cast("bytes", hub_id), cast("bytes", epoch), cast("bytes", key))


def read_forgotten(connection: apsw.Connection) -> int:
    """Time before which answers of direct writes may have been forgotten; 0 when none was."""
    before: object = connection.execute("SELECT before_ms FROM _atoma_hub_forgotten").get
    return before if isinstance(before, int) else 0


def note_forgotten(connection: apsw.Connection, before_ms: int) -> None:
    """Note that answers to keys that were drawn before ``before_ms`` may be gone."""
    connection.execute(
        "INSERT INTO _atoma_hub_forgotten(one, before_ms) VALUES(1, ?) "
        "ON CONFLICT(one) DO UPDATE SET before_ms=max(before_ms, excluded.before_ms)",
        (before_ms,),
    )


def gravestone(*names: str | bytes) -> bytes:
    """What is kept of a client, or of a key, that was forgotten."""
    parts = (name.encode() if isinstance(name, str) else name for name in names)
    return hashlib.sha256(b"\0".join(parts)).digest()[:16]


class StoreStatements:
    """SQL for one store's table at the hub, where ``_ver`` is the number of the client that changed the row last.

    ``_other_seq`` is the sequence of the last change by anybody else: below the log's floor nothing else tells a client
    whose own change is the last one that somebody else's lies underneath.

    Attributes:
        name: Store name.
        columns: Value columns.
        get: ``(scope, id)`` → columns, sequence, sequence of the last change by another author (NULL when not kept),
            author's number and client id (NULL for a direct write).
        put: ``(id, columns…, author, seq, other seq, scope)``.
        delete: ``(scope, id)``.
        scan: ``(scope, after id, limit)`` → id, sequence, columns, in order of id.
        unique: Whether a row can be in the way of another.
    """

    __slots__ = ("columns", "delete", "get", "name", "put", "scan", "unique")

    def __init__(self, store: StoreSpec[object]) -> None:
        table = quote(store.name)
        self.name = store.name
        self.columns = store.value_columns
        self.unique = any(index.unique for index in store.indexes)
        quoted = [quote(column) for column in self.columns]
        values = "".join(f"t.{column}, " for column in quoted)
        self.get = (
            f"SELECT {values}t._seq, t._other_seq, t._ver, c.client_id FROM {table} t LEFT JOIN _atoma_hub_client c ON c.number=t._ver "
            "WHERE t._scope=? AND t.id=?"
        )
        names = ["id", *quoted, "_ver", "_seq", "_other_seq", "_scope"]
        sets = ", ".join(f"{column}=excluded.{column}" for column in [*quoted, "_ver", "_seq", "_other_seq"])
        self.put = (
            f"INSERT INTO {table}({', '.join(names)}) VALUES({', '.join('?' * len(names))}) "
            f"ON CONFLICT(_scope, id) DO UPDATE SET {sets}"
        )
        self.delete = f"DELETE FROM {table} WHERE _scope=? AND id=?"
        self.scan = f"SELECT t.id, t._seq{''.join(f', t.{column}' for column in quoted)} FROM {table} t WHERE t._scope=? AND t.id>? ORDER BY t.id LIMIT ?"

    def image(self, values: Sequence[Scalar]) -> RowImage:
        """An image from values in the order of ``columns``."""
        return dict(zip(self.columns, values, strict=True))
