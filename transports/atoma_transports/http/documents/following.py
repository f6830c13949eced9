"""Documents as they change, for whoever listens; and where to begin when something may have been missed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from atoma.contracts.sync import Hint, NotifyRequest
from atoma.errors import RemoteError
from atoma_transports.http.documents.messages import Documents, Resync, to_json
from atoma_transports.http.documents.places import CheckpointPosition, checkpoint_of
from atoma_transports.http.documents.pulling import images_in, place_now, read_page
from atoma_transports.http.documents.reading import DocumentStore
from atoma_transports.http.documents.rows import document_of
from atoma_transports.http.messages import event_text
from atoma_transports.http.streams import Events


class DocumentEvents(Events):
    """Server-sent events: ``documents`` and ``resync``, ``end`` and ``error``; the data is JSON."""

    def item(self, item: msgspec.Struct) -> bytes:
        """See :class:`atoma_transports.http.streams.Form`."""
        return event_text(to_json(item).decode(), type(item).__name__.lower()).encode()


@asynccontextmanager
async def follow_documents(rows: DocumentStore) -> AsyncGenerator[AsyncIterator[msgspec.Struct]]:
    """``Resync`` first, since nobody knows what the listener has missed; then what changes from now on.

    Raises:
        RemoteError: The scope may not be read, or a transient code.
    """
    async with rows.service.notify(NotifyRequest((rows.scope,))) as hints:
        place = await place_now(rows.service, CheckpointPosition(rows.spec.name, rows.scope))
        yield _changes(rows, place, hints)


async def _changes(
    rows: DocumentStore, place: CheckpointPosition, hints: AsyncIterator[Hint]
) -> AsyncGenerator[msgspec.Struct]:
    yield Resync()
    async for hint in hints:
        while place.cursor is not None and place.cursor.seq < hint.head:
            try:
                changes, place, more = await read_page(rows.service, place)
            except RemoteError as error:
                if error.remote_code != "RESYNC":
                    raise
                place = await place_now(rows.service, place)
                yield Resync()
                break
            found = {id: document_of(rows.spec, id, image) for id, image in images_in(changes, rows.spec)}
            if found:
                yield Documents(tuple(found.values()), checkpoint_of(place), more)
            if not more:
                break
