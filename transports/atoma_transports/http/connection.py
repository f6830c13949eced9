"""One HTTP/1.1 connection: calls of the protocol under ``/v1/``, pages everywhere else."""

from __future__ import annotations

import h11
import trio

from atoma.ports.tasks import open_tasks
from atoma_transports.http.asked import read_head
from atoma_transports.http.batches import Batches
from atoma_transports.http.calls import Calls
from atoma_transports.http.envelope import PREFIX
from atoma_transports.http.messages import HttpError
from atoma_transports.http.pages import Pages, text_of
from atoma_transports.http.routes import Routes
from atoma_transports.http.wire import Gone, ServerWire
from atoma_transports.serving.face import Hosting


async def serve_http(stream: trio.abc.Stream, routes: Routes, batches: Batches, hosting: Hosting) -> None:
    """Answer the requests of one client, one after the other, until either side is done.

    Raises nothing but cancellation.
    """
    async with open_tasks() as nursery:
        wire = ServerWire(stream, nursery, hosting.drain)
        nursery.start_soon(wire.guard)
        calls = Calls(wire, hosting, batches)
        pages = Pages(wire, hosting, routes)
        try:
            while await _answer_one(wire, hosting, calls, pages):
                pass
            await wire.leave()
        except (Gone, OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
            pass
        nursery.cancel_scope.cancel()


async def _answer_one(wire: ServerWire, hosting: Hosting, calls: Calls, pages: Pages) -> bool:
    """Answer one request; whether another may follow."""
    try:
        head = await wire.head()
        if head is None:
            return False
        try:
            asked = read_head(head, hosting)
        except HttpError as error:
            await wire.send(*text_of(error.status, error.message), last=True)
            return False
        if asked.path.startswith(PREFIX):
            await calls.answer(asked)
        else:
            await pages.answer(asked)
    except HttpError as error:
        await wire.skip_body(hosting.limits.first_frame_bytes)
        await wire.send(*text_of(error.status, error.message))
    except h11.RemoteProtocolError as error:
        await wire.send(*text_of(error.error_status_hint, "not a proper HTTP/1.1 request"), last=True)
    return wire.next_cycle()
