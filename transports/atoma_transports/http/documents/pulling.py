"""Documents from a place on: first those of a snapshot, then those of the log behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from atoma.contracts.sync import PullRequest, SnapshotRequest, StoreChanges
from atoma.contracts.values import RowImage, as_image
from atoma.ports import SyncService
from atoma.schema.spec import StoreSpec
from atoma_transports.http.documents.messages import LIMIT_MAX, Document, Documents, PullDocuments
from atoma_transports.http.documents.places import CheckpointPosition, checkpoint_of, continued, place_at
from atoma_transports.http.documents.reading import DocumentStore
from atoma_transports.http.documents.rows import document_of, gone

READER = b"documents"
"""The client in whose name pages are read; it pushes nothing, so that there are no outcomes for it."""
PAGE_BYTES = 512 * 1024
ANSWER_BYTES = 2 * 1024 * 1024
CHANGES_LEAST = 100
"""A page has changes of every store of its scope, so that a small one may have none of the wanted store."""


async def pull_documents(rows: DocumentStore, asked: PullDocuments) -> Documents:
    """The documents behind a checkpoint: as many as are asked for or a few more, unless there are no more or they are large.

    Raises:
        RemoteError: ``RESYNC``: the checkpoint cannot be continued; ``MALFORMED``: it is none; or what the hub refuses.
    """
    place = place_at(asked.checkpoint, rows.spec.name, rows.scope)
    limit = max(1, min(asked.limit, LIMIT_MAX))
    found: dict[str, Document] = {}
    size, more = 0, True
    while more and len(found) < limit and size < ANSWER_BYTES:
        changes, place, more = await read_page(rows.service, place, limit - len(found))
        for id, image in images_in(changes, rows.spec):
            found[id] = document_of(rows.spec, id, image)
            size += _size(image)
    if asked.have:  # read last: what is made from now on is in the log behind the place
        present = await rows.by_id(asked.have)
        found.update({id: gone(id) for id in asked.have if id not in present})
    return Documents(tuple(found.values()), checkpoint_of(place), more)


async def read_page(
    service: SyncService, place: CheckpointPosition, wanted: int = CHANGES_LEAST
) -> tuple[Sequence[StoreChanges], CheckpointPosition, bool]:
    """What follows a place, the place behind that, and whether there is more.

    Raises:
        RemoteError: ``RESYNC``, or what the hub refuses.
    """
    changes = max(wanted, CHANGES_LEAST)
    with continued():
        if place.cursor is None:
            scan = SnapshotRequest(place.scope, READER, place.token, max_bytes=PAGE_BYTES, max_rows=changes)
            part = await service.snapshot(scan)
            behind = replace(place, token=b"", cursor=part.start) if part.done else replace(place, token=part.token)
            return part.stores, behind, True
        log = PullRequest(place.scope, place.cursor, READER, max_bytes=PAGE_BYTES, max_changes=changes)
        page = await service.pull(log)
        return page.stores, replace(place, cursor=page.end), page.more


async def place_now(service: SyncService, place: CheckpointPosition) -> CheckpointPosition:
    """The place behind all that is in the log of the scope by now, without reading it."""
    part = await service.snapshot(SnapshotRequest(place.scope, READER, max_bytes=1, max_rows=1))
    return replace(place, token=b"", cursor=part.start)


def images_in(changes: Sequence[StoreChanges], spec: StoreSpec[Any]) -> Iterator[tuple[str, RowImage | None]]:
    """The rows of one store in a page, by id; None for those that are gone."""
    for part in changes:
        if part.store != spec.name:
            continue
        for _, id, *values in part.rows:
            assert isinstance(id, str)
            yield id, spec.unpack(as_image(dict(zip(part.columns[1:], values, strict=True))))
        for _, id in part.deletes:
            yield id, None


def _size(image: RowImage | None) -> int:
    """Bytes of what can be long in a row."""
    return sum([len(value) for value in (image or {}).values() if isinstance(value, str | bytes)])
