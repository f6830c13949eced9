"""Answers to pulls and snapshots, made from what the database read in one snapshot."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from atoma.contracts.codec import decode, encode
from atoma.contracts.sync import (
    Cursor,
    Outcome,
    PullReply,
    PullRequest,
    SnapshotReply,
    SnapshotRequest,
    StoreChanges,
)
from atoma.contracts.values import RowImage, RowKey
from atoma.errors import ProtocolError, RemoteError, ValidationError
from atoma.hub.admission import complete
from atoma.hub.recovery import prove
from atoma.hub.rules import PrincipalView
from atoma.ports.hub import HubIdentity, LogPage, ScanPage, ScopeState
from atoma.schema.migrations import Past
from atoma.schema.schema import Schema

MAC_BYTES = 16


def resync(code: str, message: str) -> RemoteError:
    """An error after which the client takes a snapshot; its unsent writes are not touched."""
    return RemoteError(f"{message}; take a snapshot", remote_code=code)


def check_cursor(cursor: Cursor, epoch: bytes, page: LogPage, view: PrincipalView) -> None:
    """Refuse a cursor that the log cannot be continued from.

    Raises:
        RemoteError: ``EPOCH_CHANGED``, ``CURSOR_AHEAD``, ``CURSOR_TOO_OLD``, ``LINEAGE_MISMATCH`` or ``VIEW_CHANGED``.
    """
    fresh = cursor.seq == 0 and not cursor.epoch and not cursor.hash
    if not fresh and cursor.epoch != epoch:
        raise resync("EPOCH_CHANGED", "the hub has begun a new epoch")
    if cursor.seq > page.scope.head:
        raise resync("CURSOR_AHEAD", f"the cursor is at {cursor.seq}, the scope at {page.scope.head}")
    if cursor.seq < page.scope.floor:
        raise resync("CURSOR_TOO_OLD", f"the cursor is at {cursor.seq}, the log begins behind {page.scope.floor}")
    if page.start_hash != cursor.hash:
        raise resync("LINEAGE_MISMATCH", f"the hub has another history up to {cursor.seq}")
    if cursor.seq and cursor.view != view.digest:
        raise resync("VIEW_CHANGED", "the rows of this scope that you may see have changed")


def pull_reply(
    request: PullRequest,
    identity: HubIdentity,
    schema: Schema,
    page: LogPage,
    view: PrincipalView,
    outcomes: tuple[Outcome, ...],
) -> PullReply:
    """The page for ``request``: the last image per row, deletes, and the client's ``outcomes``."""
    last = {(change.store, change.id): (change.seq, change.post) for change in page.changes}
    if view.pages:
        last = _seen(last, page, schema, view)
    end = Cursor(page.epoch, page.end, page.end_hash, view.digest)
    return PullReply(
        scope=request.scope,
        start=request.cursor,
        end=end,
        stores=_by_store(schema, request.schema_version, ((*key, *value) for key, value in last.items())),
        more=page.end < page.scope.head,
        head=page.scope.head,
        outcomes=outcomes,
        proof=prove(identity.key, request.scope, end, page.scope.boots),
    )


def _seen(
    last: Mapping[RowKey, tuple[int, RowImage | None]], page: LogPage, schema: Schema, view: PrincipalView
) -> dict[RowKey, tuple[int, RowImage | None]]:
    """What of ``last``, the rows that ``page`` leaves, whoever has ``view`` gets: the rows that they see, whole, and that others are gone.

    Gone for them is a row that they saw before the page or at some place in it: what they have staged of a snapshot may be a
    row as it was at any of those. A row that they have seen at none is not mentioned.
    """
    met: set[RowKey] = set()
    parts = view.pages
    for change in page.changes:
        key = (change.store, change.id)
        if key in met:
            continue
        if key[0] not in parts or any(_sees(view, schema, *key, image) for image in (change.pre, change.post)):
            met.add(key)
    shown: dict[RowKey, tuple[int, RowImage | None]] = {}
    for key, (seq, image) in last.items():
        if key in met:
            shown[key] = (seq, image if key[0] not in parts or _sees(view, schema, *key, image) else None)
    return shown


def _sees(view: PrincipalView, schema: Schema, store: str, id: str, image: RowImage | None) -> bool:
    """Whether a row as the log has it is seen; an older schema may have written it."""
    return image is not None and view.sees(store, id, complete(schema.store(store), id, image))


def _by_store(
    schema: Schema, version: int, rows: Iterable[tuple[str, str, int, RowImage | None]]
) -> tuple[StoreChanges, ...]:
    """Rows as a client of ``version`` reads them; 0 is the hub's own."""
    pasts = schema.past(version)
    columns = {
        name: pasts[name].columns if name in pasts else store.value_columns for name, store in schema.stores.items()
    }
    images: dict[str, list[tuple[object, ...]]] = {}
    deletes: dict[str, list[tuple[int, str]]] = {}
    for name, id, seq, image in rows:
        store = schema.stores.get(name)
        if store is None or not store.replicate:
            continue  # a store that was taken out of the schema is still in the log, and so is one that does not replicate
        if image is None:
            deletes.setdefault(name, []).append((seq, id))
            continue
        if len(image) != len(store.fields) - 1:
            image = complete(store, id, image)
        packed = _as_of(pasts[name], id, image) if name in pasts else store.pack(image)
        images.setdefault(name, []).append((seq, id, *map(packed.__getitem__, columns[name])))
    return tuple(
        StoreChanges(
            store=name,
            schema_version=version or schema.version,
            columns=("id", *columns[name]),
            rows=tuple(images.get(name, ())),
            deletes=tuple(deletes.get(name, ())),
        )
        for name in sorted(images.keys() | deletes.keys())
    )


def _as_of(past: Past, id: str, image: RowImage) -> RowImage:
    """A row as an earlier version has it, packed.

    Raises:
        RemoteError: ``SCHEMA_TOO_OLD``: that version has no value for something in it.
    """
    try:
        return past.pack(past.downgrade(image))
    except ValidationError as error:
        message = f"row {id!r} of {past.store!r} cannot be shown to a client of so early a version: {error}; upgrade it"
        raise RemoteError(message, remote_code="SCHEMA_TOO_OLD") from error


class _Place(msgspec.Struct, frozen=True, array_like=True):
    scope: str
    principal: str
    start: Cursor
    last: tuple[str, str] | None


class SnapshotTokens:
    """The maker and reader of the tokens that carry a scan from page to page; the hub keeps nothing about it.

    Args:
        identity: The hub; its key authenticates the tokens.
    """

    __slots__ = ("_identity",)

    def __init__(self, identity: HubIdentity) -> None:
        self._identity = identity

    def make(self, scope: str, principal: str, start: Cursor, last: RowKey | None) -> bytes:
        """The token for "``principal`` continues behind ``last``"."""
        body = encode(_Place(scope, principal, start, last))
        return self._mac(body) + body

    def read(self, token: bytes, scope: str, principal: str) -> tuple[Cursor, RowKey | None]:
        """Start of the scan and the last key it saw.

        Raises:
            RemoteError: The token is not this hub's, or was made for another scope or principal.
        """
        mac, body = token[:MAC_BYTES], token[MAC_BYTES:]
        try:
            if not hmac.compare_digest(mac, self._mac(body)):
                raise ProtocolError("not our token")
            place = decode(body, _Place)
        except ProtocolError:
            raise RemoteError(
                "the snapshot token is damaged; begin the snapshot again", remote_code="MALFORMED"
            ) from None
        if place.scope != scope or place.principal != principal:
            raise RemoteError("the snapshot token belongs to another scope or user", remote_code="PERMISSION_DENIED")
        return place.start, place.last

    def _mac(self, body: bytes) -> bytes:
        return hmac.new(self._identity.key, body, hashlib.sha256).digest()[:MAC_BYTES]


def check_snapshot(start: Cursor, epoch: bytes, scope: ScopeState, view: PrincipalView) -> None:
    """Refuse to go on with a scan whose log tail is gone, or which has given out other rows so far.

    Raises:
        RemoteError: ``SNAPSHOT_EXPIRED`` or ``VIEW_CHANGED``.
    """
    if start.epoch != epoch or not scope.floor <= start.seq <= scope.head:
        raise resync("SNAPSHOT_EXPIRED", "the log no longer reaches back to the beginning of this snapshot")
    if start.view != view.digest:
        raise resync("VIEW_CHANGED", "the rows of this scope that you may see have changed")


def seen_of(page: ScanPage, view: PrincipalView) -> ScanPage:
    """``page``, which was read without conditions, with what whoever has ``view`` sees of it."""
    parts = view.pages
    rows = tuple(row for row in page.rows if row[0] not in parts or view.sees(row[0], row[1], row[3]))
    return replace(page, rows=rows)


def snapshot_reply(
    request: SnapshotRequest, schema: Schema, start: Cursor, page: ScanPage, token: bytes
) -> SnapshotReply:
    """The page for ``request``."""
    return SnapshotReply(
        scope=request.scope,
        start=start,
        stores=_by_store(schema, request.schema_version, page.rows),
        token=token,
        done=page.last is None,
    )
