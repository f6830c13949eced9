"""The hub's own tables, declared once for every dialect."""

from __future__ import annotations

from atoma_stores.sql.tables import Column, Table, blobs, integers, text

INFO = Table(
    "info",
    (*integers("one"), *blobs("hub_id", "epoch", "key"), *integers("format"),
     Column("commits", "INTEGER", default="0", later=True), Column("boot", "BLOB", nullable=True, later=True)),
    ("one",),
    single=True,
)  # fmt: skip
SCOPE = Table(
    "scope",
    # boots: which boots of the hub have written which part of the log
    (*text("scope"), *integers("head"), *blobs("head_hash"), *integers("floor"), *blobs("floor_hash"),
     Column("boots", "BLOB", nullable=True, later=True)),
    ("scope",),
)  # fmt: skip
TX = Table(
    "tx",
    # author: number of the client, 0 for a direct write
    (*text("scope"), *integers("seq"), *blobs("hash"), *integers("author", "mid"), *text("principal"),
     *integers("committed_ms", "n", "bytes"), Column("written_ms", "INTEGER", default="0", later=True)),
    ("scope", "seq"),
)  # fmt: skip
CHANGE = Table(
    "change",
    # fields: JSON list of the columns that changed, NULL for all; pre and post: msgpack, NULL for absent
    (*text("scope"), *integers("seq", "idx"), *text("store", "id"), *integers("author"),
     Column("fields", "TEXT", nullable=True), Column("pre", "BLOB", nullable=True), Column("post", "BLOB", nullable=True)),
    ("scope", "seq", "idx"),
    indexes=(("change_row", ("scope", "store", "id", "seq")),),
)  # fmt: skip
TOMBSTONE = Table(
    "tombstone",
    (*text("scope", "store", "id"), *integers("seq", "author"), *blobs("last"),
     Column("other_seq", "INTEGER", nullable=True, later=True)),  # as in a store's rows
    ("scope", "store", "id"),
    indexes=(("tombstone_seq", ("scope", "seq")),),
)  # fmt: skip
CLIENT = Table(
    "client",
    (*integers("number"), *blobs("client_id"), *integers("incarnation"), *text("principal"), *integers("last_mid"),
     *blobs("last_digest"), *integers("confirmed_mid", "seen_ms")),
    ("number",),
    unique="client_id",
    indexes=(("client_of", ("principal",)),),
    drawn=True,
)  # fmt: skip
OUTCOME = Table(
    "outcome",
    # detail: msgpack of the error and the conflicts, NULL when there are none
    (*integers("client", "mid"), *text("status", "scope"), *integers("seq"), *blobs("digest"),
     Column("detail", "BLOB", nullable=True), *integers("at_ms")),
    ("client", "mid"),
)  # fmt: skip
IDEM = Table(
    "idem",
    (*text("principal", "idem"), *blobs("outcome"), *integers("at_ms")),
    ("principal", "idem"),
    indexes=(("idem_age", ("at_ms",)),),
)
ALIAS = Table(
    "alias",
    # later names of mutations that were numbered anew: the digest they had first, and the number they were decided under
    (*blobs("digest"), *integers("client", "mid")),
    ("digest",),
    indexes=(("alias_of", ("client",)),),
)
TRACE = Table(
    "trace",
    # offers of a lost history, by the epoch it was: the position a row was offered from, the row's sequence then,
    # whether the hub had the row before anybody offered it, and the furthest position from which it was refused
    (*text("scope"), *blobs("epoch"), *text("store", "id"), *integers("position", "seq"),
     Column("survivor", "INTEGER", default="0", later=True), Column("refused", "INTEGER", default="0", later=True)),
    ("scope", "epoch", "store", "id"),
    indexes=(("trace_row", ("scope", "store", "id")),),
)  # fmt: skip
RECOVERED = Table(
    "recovered",
    # everything up to this position of a lost history has been offered; the device that had seen most of it was at "seen", and
    # by these boots it had come there
    (*text("scope"), *blobs("epoch"), *integers("position"), Column("seen", "INTEGER", default="0", later=True),
     Column("boots", "BLOB", nullable=True, later=True)),
    ("scope", "epoch"),
)  # fmt: skip
EXPIRED = Table("expired", blobs("client"), ("client",))
"""Clients that were forgotten, and first digests of mutations that were decided under later names, so that they are not taken
for new ones."""
EXPIRED_COUNT = Table("expired_count", (*text("principal"), *integers("n")), ("principal",))
"""How many were, those that :data:`EXPIRED` does not keep included."""
SPENT = Table("spent", blobs("key"), ("key",))
"""Keys that do not tell their age and whose answers were deleted, so that they are not taken for new ones."""
EPOCH = Table(
    "epoch",
    # every epoch that has ended: what devices do about what came behind that end, whether they may delete rows that the
    # hub still has, and whether what nothing proves is taken as well
    (*integers("number"), *blobs("epoch"), *integers("ended_ms"),
     Column("devices", "TEXT", default="'offer'", later=True), Column("deletes", "INTEGER", default="1", later=True),
     Column("unproven", "INTEGER", default="0", later=True)),
    ("number",),
    unique="epoch",
    drawn=True,
)  # fmt: skip
EPOCH_END = Table("epoch_end", (*text("scope"), *integers("epoch", "head")), ("scope", "epoch"))
"""The heads of its scopes at the moment when it ended: so far is the history the same as now."""
FORGOTTEN = Table("forgotten", integers("one", "before_ms"), ("one",), single=True)
"""Answers to keys that were drawn before this time may have been deleted; no row while none was."""

COUNTER = Table("counter", (*text("scope", "name"), *integers("value")), ("scope", "name"))
"""The last number that each counter of a scope has given."""

TABLES = (
    INFO, SCOPE, TX, CHANGE, TOMBSTONE, CLIENT, OUTCOME, IDEM, ALIAS, TRACE, RECOVERED, EXPIRED, EXPIRED_COUNT, SPENT, EPOCH,
    EPOCH_END, FORGOTTEN, COUNTER,
)  # fmt: skip
