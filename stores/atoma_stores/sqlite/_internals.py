"""The engine's own tables beside the stores."""

from __future__ import annotations

from atoma_stores.sqlite._history import HISTORY_TABLES

CLIENT_TABLES = (
    # confirmed image of rows that have pending mutations; image NULL = the row is not there at the hub
    "CREATE TABLE IF NOT EXISTS _atoma_shadow(store TEXT NOT NULL, id TEXT NOT NULL, scope TEXT NOT NULL, "
    "seq INTEGER NOT NULL, image BLOB, PRIMARY KEY(store, id)) STRICT, WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS _atoma_shadow_scope ON _atoma_shadow(scope, store, id)",
    # the overlay in local order; rows of kind 'outbox' are the outbox. AUTOINCREMENT: an lsn is never given out twice
    "CREATE TABLE IF NOT EXISTS _atoma_pending(lsn INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, "
    "mid INTEGER NOT NULL, idem TEXT NOT NULL UNIQUE, scope TEXT NOT NULL, base_seq INTEGER NOT NULL, "
    "body BLOB NOT NULL, digest BLOB NOT NULL, status INTEGER NOT NULL DEFAULT 0, ack_seq INTEGER NOT NULL DEFAULT 0, "
    "attempts INTEGER NOT NULL DEFAULT 0, next_attempt_ms INTEGER NOT NULL DEFAULT 0, "
    "last_error TEXT NOT NULL DEFAULT '') STRICT",
    "CREATE UNIQUE INDEX IF NOT EXISTS _atoma_pending_mid ON _atoma_pending(mid) WHERE kind='outbox'",
    "CREATE INDEX IF NOT EXISTS _atoma_pending_held ON _atoma_pending(lsn) WHERE kind='held'",
    "CREATE INDEX IF NOT EXISTS _atoma_pending_acked ON _atoma_pending(scope, mid) WHERE status=1",
    "CREATE TABLE IF NOT EXISTS _atoma_pending_row(store TEXT NOT NULL, id TEXT NOT NULL, lsn INTEGER NOT NULL, "
    "pre BLOB, PRIMARY KEY(store, id, lsn)) STRICT, WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS _atoma_pending_row_lsn ON _atoma_pending_row(lsn)",
    # what units answered, so that a repeated one answers the same instead of doubling
    "CREATE TABLE IF NOT EXISTS _atoma_unit(n INTEGER PRIMARY KEY AUTOINCREMENT, idem TEXT NOT NULL UNIQUE, "
    "answer BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS _atoma_inbox(n INTEGER PRIMARY KEY AUTOINCREMENT, mid INTEGER NOT NULL, "
    "store TEXT NOT NULL, id TEXT NOT NULL, scope TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL, "
    "op BLOB NOT NULL, base BLOB, mine BLOB, theirs BLOB, theirs_seq INTEGER NOT NULL, at_ms INTEGER NOT NULL, "
    "resolution TEXT NOT NULL DEFAULT '') STRICT",
    "CREATE INDEX IF NOT EXISTS _atoma_inbox_row ON _atoma_inbox(mid, store, id)",
    "CREATE TABLE IF NOT EXISTS _atoma_sub(scope TEXT PRIMARY KEY, state TEXT NOT NULL, cursor BLOB NOT NULL, "
    "stage_cursor BLOB, token BLOB NOT NULL, head INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    # scopes that were brought along while the file was in use: who uses each, by the number of the program, and when it was
    # used last, which is the row of program 0
    "CREATE TABLE IF NOT EXISTS _atoma_use(scope TEXT NOT NULL, program INTEGER NOT NULL, at_ms INTEGER NOT NULL, "
    "PRIMARY KEY(scope, program)) STRICT, WITHOUT ROWID",
    # the same for parts of scopes, in shapes
    "CREATE TABLE IF NOT EXISTS _atoma_part(scope TEXT NOT NULL, shape BLOB NOT NULL, program INTEGER NOT NULL, "
    "at_ms INTEGER NOT NULL, PRIMARY KEY(scope, shape, program)) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS _atoma_repair(n INTEGER PRIMARY KEY AUTOINCREMENT, report BLOB NOT NULL) STRICT",
    # rows that the hub has lost and this device had
    "CREATE TABLE IF NOT EXISTS _atoma_lost(n INTEGER PRIMARY KEY AUTOINCREMENT, store TEXT NOT NULL, id TEXT NOT NULL, "
    "scope TEXT NOT NULL, image BLOB, theirs BLOB, reason TEXT NOT NULL, fork BLOB NOT NULL, recovers BLOB NOT NULL, "
    "at_ms INTEGER NOT NULL, resolution TEXT NOT NULL DEFAULT '') STRICT",
    # snapshot under construction; image NULL = a tombstone from the log's tail
    "CREATE TABLE IF NOT EXISTS _atoma_stage(scope TEXT NOT NULL, store TEXT NOT NULL, id TEXT NOT NULL, "
    "seq INTEGER NOT NULL, image BLOB, PRIMARY KEY(scope, store, id)) STRICT, WITHOUT ROWID",
    # what commits have changed, for other programs that have the file open; rows NULL = too much to be kept
    "CREATE TABLE IF NOT EXISTS _atoma_change(number INTEGER PRIMARY KEY, stores BLOB NOT NULL, rows BLOB) STRICT",
    # programs that have the file open; the beat moves while they are alive
    "CREATE TABLE IF NOT EXISTS _atoma_process(id INTEGER PRIMARY KEY AUTOINCREMENT, beat INTEGER NOT NULL) STRICT",
    *HISTORY_TABLES,
    # the outbox for people with any tool, a line for each row that a write is on
    'CREATE VIEW IF NOT EXISTS atoma_outbox("order", state, store, id, scope, mid, key, attempts, next_attempt_ms, why) AS '
    "SELECT p.lsn, CASE WHEN p.kind='held' THEN 'held' WHEN p.status=1 THEN 'accepted' ELSE 'queued' END, "
    "r.store, r.id, p.scope, p.mid, p.idem, p.attempts, p.next_attempt_ms, p.last_error "
    "FROM _atoma_pending AS p JOIN _atoma_pending_row AS r ON r.lsn=p.lsn WHERE p.kind<>'volatile'",
    "INSERT OR IGNORE INTO _atoma_meta(key, value) VALUES('commit', 0), ('version', 0), ('outbox_rows', 0), "
    "('outbox_bytes', 0), ('raw', 0)",
)

CLIENT_ADDITIONS = (
    ("_atoma_sub", "trail BLOB"),
    ("_atoma_sub", "proof BLOB NOT NULL DEFAULT x''"),
    ("_atoma_sub", "turns BLOB"),
    ("_atoma_inbox", "lsn INTEGER NOT NULL DEFAULT 0"),
    ("_atoma_inbox", "incarnation INTEGER NOT NULL DEFAULT 0"),
    ("_atoma_pending", "local BLOB NOT NULL DEFAULT x''"),
)
"""Columns that files of earlier versions lack."""
