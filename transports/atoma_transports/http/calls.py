"""The protocol over HTTP: ``POST /v1/{method}``, for one connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import TypeVar
from urllib.parse import parse_qsl

import h11
import msgspec

from atoma.contracts.survey import UNCOUNTED_BYTES
from atoma.contracts.sync import NotifyRequest
from atoma.errors import ProtocolError
from atoma.ports import DeclaresStores, Environment, Peer, SyncService
from atoma.ports.service import understood_by
from atoma.ports.sessions import Session
from atoma_transports.adapters import METHODS
from atoma_transports.adapters.methods import NOTIFY
from atoma_transports.calls.call import BUDGET_MS_MAX, TRACE_LENGTH_MAX, deadline_of
from atoma_transports.calls.errors import LATE, STOPPING, explain, large_answer
from atoma_transports.calls.methods import Method
from atoma_transports.calls.requests import HeldAnswers, WireFormat, read_request, rows_size_max, size_max
from atoma_transports.http.answers import RefusedRequest, failure, refused, send_answer
from atoma_transports.http.asked import Asked
from atoma_transports.http.batches import RunningBatches, answer_batch, read_batch
from atoma_transports.http.bodies import whole_body
from atoma_transports.http.documents.asking import VERBS, DocumentPath, document_path, rows_asked
from atoma_transports.http.documents.following import DocumentEvents, follow_documents
from atoma_transports.http.documents.messages import PLAIN_JSON, PullDocuments, PushDocuments, to_json
from atoma_transports.http.documents.pulling import pull_documents
from atoma_transports.http.documents.pushing import push_documents
from atoma_transports.http.envelope import (
    AS_JSON,
    BATCH,
    BUDGET,
    CANCEL,
    ENCODINGS,
    JSON,
    PREFIX,
    TRACE,
    Cancel,
    Done,
    Encoding,
)
from atoma_transports.http.gzip import takes_gzip
from atoma_transports.http.messages import HttpError
from atoma_transports.http.named import with_booleans
from atoma_transports.http.openapi import DESCRIPTION, STORES, description_text, stores_text
from atoma_transports.http.streams import Events, Records, StreamForm, Wanted, answer_stream
from atoma_transports.http.wire import Gone, Late, ServerWire
from atoma_transports.serving.admission import Admission, bearer_token
from atoma_transports.serving.handlers import Hosting

T = TypeVar("T", bound=msgspec.Struct)

TAKES: Mapping[str, tuple[str, ...]] = {
    **{name: ("GET", "POST") if name == NOTIFY.name else ("POST",) for name in METHODS},
    **dict.fromkeys((BATCH, CANCEL), ("POST",)),
    **dict.fromkeys((DESCRIPTION, STORES), ("GET", "HEAD")),
}
"""The verbs of each path but those of documents."""

AS_DOCUMENTS = Encoding(JSON, to_json, PLAIN_JSON)


class Calls:
    """The calls of one connection, which are answered one after the other."""

    def __init__(self, wire: ServerWire, hosting: Hosting, batches: RunningBatches) -> None:
        self._wire = wire
        self._hosting = hosting
        self._batches = batches
        self._limits = hosting.limits
        self._admission = Admission(hosting.host, hosting.place, wire.share, hosting.limits.handshake_s)
        self._declares = hosting.host if isinstance(hosting.host, DeclaresStores) else None
        self._held = HeldAnswers(hosting.limits.queue_bytes, wire.share)
        self._last: tuple[str, Peer, Session] | None = None

    def close(self) -> None:
        """The connection is over."""
        self._admission.close()

    async def answer(self, asked: Asked) -> None:
        """Answer one request under ``/v1/``.

        Raises:
            Gone: The client has left; whatever was done for it was cancelled.
            h11.RemoteProtocolError: The body that came is not HTTP/1.1.
        """
        encoding = ENCODINGS.get(asked.content_type)
        self._wire.takes_gzip = takes_gzip(asked.fields.get("accept-encoding", ""))
        trace_id = asked.fields.get(TRACE, "")[:TRACE_LENGTH_MAX]
        try:
            await self._answer(asked, encoding, trace_id)
        except RefusedRequest as error:
            await self._refuse(error, encoding)
        except HttpError as error:
            await self._refuse(refused(error.status, error.message), encoding)
        except Late:
            await self._refuse(RefusedRequest(LATE), encoding)
        except (Gone, h11.RemoteProtocolError):
            raise
        except Exception as error:  # whatever a handler raises is answered, and logged when unexpected
            await self._refuse(RefusedRequest(explain(error, asked.path[len(PREFIX) :], trace_id)), encoding)

    async def _answer(self, asked: Asked, encoding: Encoding | None, trace_id: str) -> None:
        name = asked.path[len(PREFIX) :]
        served = METHODS.get(name)
        path = document_path(name)
        self._check(asked, name, TAKES.get(name) if path is None else VERBS[path.act])
        if name in (DESCRIPTION, STORES):
            return await self._described(asked, name)
        if path is not None:
            return await self._documents(asked, path, trace_id)
        if asked.method == "GET":
            admitted = await self._admit(asked)
            await self._wire.body(0)
            assert served is not None
            return await self._stream(asked, served, admitted, admitted.service, from_query(asked), Events(), trace_id)
        if encoding is None:
            raise refused(415, "send application/json or application/vnd.msgpack")
        admitted = await self._admit(asked)
        service = admitted.service
        if encoding is AS_JSON:
            service = with_booleans(service, self._declares)
        if served is None:
            return await self._special(asked, encoding, admitted, service)
        most = size_max(served, self._limits, encoding.format)
        message = await self._read(asked, most, encoding.format, served.request)
        if served.answer is None:
            form = Events() if encoding is AS_JSON else Records()
            return await self._stream(asked, served, admitted, service, message, form, trace_id)
        answer = served.answer
        return await self._carry_out(asked, admitted, lambda: answer(service, message), encoding, reads=served.reads)

    async def _described(self, asked: Asked, name: str) -> None:
        """What is spoken here, for anybody; or what the stores hold, for whoever has a token."""
        await self._wire.body(0)
        if name == STORES:
            await self._admit(asked)
            if self._declares is None:
                raise refused(404, "this server does not say what its stores hold")
            body = stores_text(self._declares.schema)
        else:
            body = description_text()
        await send_answer(self._wire, AS_JSON, body)

    async def _stream(
        self,
        asked: Asked,
        served: Method,
        admitted: Session,
        service: SyncService,
        message: msgspec.Struct,
        form: StreamForm,
        trace_id: str,
    ) -> None:
        assert served.feed is not None
        name = asked.path[len(PREFIX) :]
        wanted = Wanted(name, partial(served.feed, service), message, form, self._deadline(asked), trace_id)
        await answer_stream(self._wire, self._hosting, admitted, wanted)

    async def _documents(self, asked: Asked, path: DocumentPath, trace_id: str) -> None:
        """Documents, for clients that replicate collections of them."""
        if path.act != "stream" and asked.content_type != JSON:
            raise refused(415, "send application/json")
        admitted = await self._admit(asked)
        rows = rows_asked(path, asked.query, self._hosting.host, admitted.service, trace_id)
        if path.act == "stream":
            await self._wire.body(0)
            listened, deadline = NotifyRequest((rows.scope,)), self._deadline(asked)
            name = asked.path[len(PREFIX) :]
            wanted = Wanted(name, lambda _: follow_documents(rows), listened, DocumentEvents(), deadline, trace_id)
            await answer_stream(self._wire, self._hosting, admitted, wanted)
            return
        most = rows_size_max(self._limits, PLAIN_JSON)
        if path.act == "pull":
            pulled = await self._read(asked, most, PLAIN_JSON, PullDocuments)
            work: Callable[[], Awaitable[msgspec.Struct]] = partial(pull_documents, rows, pulled)
        else:
            pushed = await self._read(asked, most, PLAIN_JSON, PushDocuments)
            work = partial(push_documents, rows, pushed.rows, Environment())
        await self._carry_out(asked, admitted, work, AS_DOCUMENTS, reads=path.act == "pull")

    def _check(self, asked: Asked, name: str, takes: Collection[str] | None) -> None:
        """Refuse what cannot be answered whoever asks.

        Raises:
            Refused: No such method, another verb, a page of another site, or the server is ending.
        """
        if not self._hosting.sites.admits(asked.fields):
            raise refused(403, "requests from other sites are refused")
        if takes is None:
            raise refused(404, "no such method here")
        if asked.method not in takes:
            allowed = ", ".join(takes).encode()
            raise refused(405, f"{PREFIX}{name} does not take {asked.method}", [(b"allow", allowed)])
        if self._hosting.drain.is_set():
            raise RefusedRequest(STOPPING)

    async def _admit(self, asked: Asked) -> Session:
        """Whoever the token belongs to; nobody sends a large body before that is known."""
        token = bearer_token(asked.fields.get("authorization", ""))
        last = self._last
        if last is not None and last[0] == token and last[1] == asked.peer and last[2].is_good:
            self._admission.enter(last[2])
            return last[2]
        admitted = await self._admission.admit(token, asked.peer)
        self._last = (token, asked.peer, admitted)
        return admitted

    async def _body(self, asked: Asked, most: int) -> bytes:
        size = asked.fields.get("content-length", "0")
        if len(size) > 15 or int(size) > most:
            raise refused(413, f"a body may have {most} bytes")
        return await whole_body(self._wire, asked, most)

    async def _read(self, asked: Asked, most: int, form: WireFormat, kind: type[T]) -> T:
        """The message in a body of at most so many bytes, which the client has earned time with then."""
        body = await self._body(asked, most)
        message = await read_request(body, kind, form, self._wire.share)
        self._wire.share.earned(len(body))
        return message

    def _deadline(self, asked: Asked) -> float:
        text = asked.fields.get(BUDGET)
        if text is None:
            return deadline_of(-1)
        if not (text.isascii() and text.isdigit()) or len(text) > 15 or int(text) > BUDGET_MS_MAX:
            raise ProtocolError(f"{BUDGET} is a number of milliseconds")
        return deadline_of(int(text))

    async def _carry_out(
        self,
        asked: Asked,
        admitted: Session,
        work: Callable[[], Awaitable[msgspec.Struct]],
        encoding: Encoding,
        *,
        reads: bool,
    ) -> None:
        """Do one piece of ``work`` and send what it returns, once there is room for that; what ``reads`` may be done again."""

        async def make() -> bytes:
            return encoding.encode(await work())

        with admitted.call():
            body = await self._wire.attended(lambda: self._held.take(make, reads=reads), self._deadline(asked))
        try:
            await self._send(encoding, body)
        finally:
            self._held.give(len(body))

    async def _special(self, asked: Asked, encoding: Encoding, admitted: Session, service: SyncService) -> None:
        subject = admitted.principal.subject
        if asked.path == PREFIX + BATCH:
            body = await self._body(asked, self._limits.frame_bytes)
            several = await read_batch(encoding, body, self._deadline(asked), self._wire.share)
            self._wire.share.earned(len(body), len(several.calls))
            return await answer_batch(self._wire, self._hosting, self._batches, admitted, service, several)
        body = await self._body(asked, UNCOUNTED_BYTES)
        given_up = encoding.format.decode(body, Cancel)
        self._batches.cancel(subject, given_up)
        done = Done(subject) if given_up.calls else Done(subject, understood_by(self._hosting.host))
        return await self._reply(encoding, done)

    async def _reply(self, encoding: Encoding, reply: msgspec.Struct) -> None:
        await self._send(encoding, encoding.encode(reply))

    async def _send(self, encoding: Encoding, body: bytes) -> None:
        if len(body) > self._limits.frame_bytes:
            raise RefusedRequest(large_answer(len(body), self._limits.frame_bytes))
        await send_answer(self._wire, encoding, body)

    async def _refuse(self, error: RefusedRequest, encoding: Encoding | None) -> None:
        """Send an error; a small body is read first, so that the connection can be used again."""
        await self._wire.skip_body(self._limits.first_frame_bytes)
        status, fields, body = failure(error, encoding)
        await self._wire.send(status, fields, body)


def from_query(asked: Asked) -> NotifyRequest:
    """What ``GET /v1/notify?scope=a&scope=b`` asks for.

    Raises:
        Refused: It names no scope, or something else.
    """
    given = parse_qsl(asked.query, keep_blank_values=True)
    scopes = tuple(value for name, value in given if name == "scope")
    if not scopes or len(scopes) < len(given):
        raise refused(400, "name what to listen to: /v1/notify?scope=a&scope=b")
    return NotifyRequest(scopes)
