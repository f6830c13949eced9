"""Epochs of the hub: where each one ended, and who was there then.

A hub that goes back to an older state gives numbers out anew. Within one epoch a sequence names one state; between
epochs only what lies before the end of the earlier one is common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias, cast

from atoma.contracts.sync import DevicePolicy
from atoma.contracts.versions import PLAIN, Versions, tag_of
from atoma.errors import MigrationError, StoreCorrupt
from atoma.ports.environment import Environment
from atoma.ports.hub import ClientState, EndedEpoch, HubIdentity, Permission
from atoma_stores.sql.dialect import Dialect
from atoma_stores.sql.hub import tables
from atoma_stores.sql.scripts import Execute, Row, Script

Word: TypeAlias = tuple[DevicePolicy, bool, bool]
"""What devices do about what came behind the end of an epoch; whether that goes for deletions, and for what is unproved."""

HUB_FORMAT = 1
"""Of the hub's own tables."""
KEY_BYTES, IDENTITY_BYTES = 32, 16
NO_WORD: Word = ("offer", True, False)
ABSENT_MAX = 1_000
ENDED = "SELECT e.epoch, e.ended_ms, e.devices, e.deletes, e.unproven FROM {epoch} e ORDER BY e.number"
ENDS = (
    "SELECT k.scope, e.epoch, coalesce(d.head, 0) FROM {keys} {join} {epoch} e ON 1=1 "
    "LEFT JOIN {epoch_end} d ON d.epoch=e.number AND d.scope=k.scope ORDER BY k.n, e.number"
)
"""The head of each scope at the end of every epoch, oldest first."""
_PERMITTED: dict[Permission, str] = {
    "offers": "devices='offer'",
    "deletes": "deletes=1",
    "deletes_put_off": "deletes=2",
    "unproven": "unproven=1",
}


def info(dialect: Dialect) -> Script[tuple[HubIdentity, int, int] | None]:
    """Who the hub is, the format of its tables, and its counter of commits; None in a new database."""
    sql = "SELECT i.hub_id, i.epoch, i.key, i.format, i.commits FROM {info} i"
    (rows,) = yield [Execute(dialect.render(sql))]
    if not rows:
        return None
    hub_id, epoch, key, form, commits = cast("tuple[bytes, bytes, bytes, int, int]", rows[0])
    return HubIdentity(hub_id, epoch, key), form, commits


def begin(dialect: Dialect, identity: HubIdentity, form: int) -> Script[None]:
    """Say who the hub is, in a new database."""
    insert = dialect.insert(dialect.table("info"), tables.INFO.of("one", "hub_id", "epoch", "key", "format"))
    yield [insert.of([(1, identity.hub_id, identity.epoch, identity.key, form)])]


def load_identity(dialect: Dialect, environment: Environment, where: str = "") -> Script[tuple[HubIdentity, int]]:
    """Who the hub is, minted in a new database, and its counter of commits.

    Args:
        dialect: How it is written.
        environment: Chance.
        where: What an error says before anything else.

    Raises:
        MigrationError: The hub's tables are newer than the code.
    """
    found = yield from info(dialect)
    if found is None:
        mint = environment.random.randbytes
        identity = HubIdentity(mint(IDENTITY_BYTES), mint(IDENTITY_BYTES), mint(KEY_BYTES))
        yield from begin(dialect, identity, HUB_FORMAT)
        return identity, 0
    identity, form, commits = found
    if form > HUB_FORMAT:
        raise MigrationError(f"{where}hub format {form} is newer than this program's {HUB_FORMAT}; update the program")
    return identity, commits


def note_boot(dialect: Dialect, boot: bytes) -> Script[None]:
    """Note that what is written from now on is of another boot: the database may have gone back, with nothing left to tell of it."""
    yield [Execute(dialect.render("UPDATE {info} SET boot={p1}"), (boot,))]


def mint_epoch(environment: Environment) -> bytes:
    """A name for an epoch that is about to begin."""
    return environment.random.randbytes(IDENTITY_BYTES)


def end_epoch(dialect: Dialect, following: bytes, now_ms: int, devices: DevicePolicy, *, deletes: bool) -> Script[int]:
    """Let the epoch end at the heads of now and ``following`` begin; the counter of commits.

    Answers of before may be among what was lost: nobody is told that such a write never happened, or has it done again.
    """
    render = dialect.render
    yield dialect.lock_all(tables.SCOPE)  # whoever is writing ends first, and belongs to the epoch that ends
    found = yield from info(dialect)
    if found is None:
        raise StoreCorrupt("the hub's own description is missing; restore a copy")
    last = "(SELECT max(e.number) FROM {epoch} e)"
    ended = (
        f"INSERT INTO {{epoch}}(number, epoch, ended_ms, devices, deletes) SELECT coalesce({last}, 0)+1, i.epoch, {{p1}}, {{p2}}, "
        "{p3} FROM {info} i"
    )
    heads = f"INSERT INTO {{epoch_end}}(scope, epoch, head) SELECT s.scope, {last}, s.head FROM {{scope}} s"
    # what was brought back under the name of this epoch is of a history before: the hub had not been told of a restore. Its positions
    # say nothing of what is lost from now on, so it gets a name that no epoch has
    other = hashlib.sha256(following).digest()[:IDENTITY_BYTES]
    untold = [f"UPDATE {{{name}}} SET epoch={{p1}} WHERE epoch={{p2}}" for name in ("trace", "recovered")]
    yield [
        Execute(render(ended), (now_ms, devices, int(deletes))),
        Execute(render(heads)),
        *(Execute(render(sql), (other, found[0].epoch)) for sql in untold),
        note_forgotten(dialect, now_ms),
        Execute(render("UPDATE {info} SET epoch={p1}, commits=commits+1"), (following,)),
    ]
    return found[2] + 1


def note_forgotten(dialect: Dialect, before_ms: int) -> Execute:
    """Note that answers to keys that were drawn before ``before_ms`` may be gone."""
    sql = (
        "INSERT INTO {forgotten} AS old(one, before_ms) VALUES(1, {p1}) "
        "ON CONFLICT(one) DO UPDATE SET before_ms={greatest}(old.before_ms, excluded.before_ms)"
    )
    return Execute(dialect.render(sql), (before_ms,))


def ended_epochs(dialect: Dialect) -> Script[list[EndedEpoch]]:
    """Every epoch that has ended, oldest first."""
    (rows,) = yield [Execute(dialect.render(ENDED))]
    return read_ended(rows)


def read_ended(rows: Sequence[Row]) -> list[EndedEpoch]:
    """What :data:`ENDED` finds."""
    found = cast("Sequence[tuple[bytes, int, DevicePolicy, int, int]]", rows)
    return [
        EndedEpoch(epoch, ended_ms, devices, bool(deletes), bool(unproven))
        for epoch, ended_ms, devices, deletes, unproven in found
    ]


def read_ends(rows: Sequence[Row]) -> dict[str, list[tuple[bytes, int]]]:
    """What :data:`ENDS` finds, by scope."""
    ends: dict[str, list[tuple[bytes, int]]] = {}
    for scope, epoch, head in cast("Sequence[tuple[str, bytes, int]]", rows):
        ends.setdefault(scope, []).append((epoch, head))
    return ends


def absent_clients(dialect: Dialect, epoch: bytes) -> Script[list[ClientState]]:
    """Clients that have not been seen since ``epoch`` ended, the one that was away longest first; a thousand at most."""
    sql = (
        "SELECT c.client_id, c.incarnation, c.principal, c.last_mid, c.last_digest, c.confirmed_mid, c.seen_ms FROM {client} c "
        "WHERE c.seen_ms<(SELECT e.ended_ms FROM {epoch} e WHERE e.epoch={p1}) "
        f"ORDER BY c.seen_ms, c.number LIMIT {ABSENT_MAX}"
    )
    (rows,) = yield [Execute(dialect.render(sql), (epoch,))]
    return [ClientState(*cast("tuple[bytes, int, str, int, bytes, int, int]", row)) for row in rows]


def word_of(said: Sequence[EndedEpoch], present: bytes, epoch: bytes, after: bytes = b"") -> Word:
    """What devices may do about what came behind the end of ``epoch``.

    Args:
        said: The epochs that have ended, oldest first.
        present: The epoch now.
        epoch: The epoch.
        after: The epoch that began when the other one was lost, where this is known: of one that the file has never had,
            what is said of the epoch before ``after`` counts. Else it is the latest word, and no deletion that any word
            holds.
    """
    if not said:
        return NO_WORD
    following = [*(ended.epoch for ended in said[1:]), present]
    named = next((ended for ended in said if ended.epoch == epoch), None)
    before = next((ended for ended, began in zip(said, following, strict=True) if began == after), None)
    word = named or before or replace(said[-1], deletes=all(ended.deletes for ended in said))
    return word.devices, word.deletes, word.unproven


def versions_of(present: bytes, ends: Sequence[tuple[bytes, int]]) -> Versions:
    """How the versions of a scope's rows name their epochs; ``ends`` has its head at the end of each, oldest first."""
    if not ends:
        return PLAIN
    told = [(head, 0 if number == 0 else tag_of(epoch)) for number, (epoch, head) in enumerate(ends)]
    return Versions(told, tag_of(present))


def traced(dialect: Dialect) -> Script[list[tuple[str, bytes]]]:
    """Scopes with the epochs of which devices have brought rows back."""
    (rows,) = yield [Execute(dialect.render("SELECT DISTINCT r.scope, r.epoch FROM {trace} r"))]
    return list(cast("Sequence[tuple[str, bytes]]", rows))


def put_off(dialect: Dialect) -> Script[list[bytes]]:
    """Ended epochs whose deletions are allowed and were not carried out yet."""
    (rows,) = yield [Execute(dialect.render("SELECT e.epoch FROM {epoch} e WHERE e.deletes=2 ORDER BY e.number"))]
    return [cast("bytes", epoch) for (epoch,) in rows]


def permit(dialect: Dialect, epoch: bytes, what: Permission) -> Script[bool]:
    """Allow devices ``what`` about what came behind the end of ``epoch``; False when no such epoch has ended."""
    sql = f"UPDATE {{epoch}} SET {_PERMITTED[what]} WHERE epoch={{p1}} RETURNING number"
    (rows,) = yield [Execute(dialect.render(sql), (epoch,))]
    return bool(rows)
