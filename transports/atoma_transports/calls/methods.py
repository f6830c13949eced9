"""The methods of the service, each as one row: how it is called and how it is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, Literal, TypeAlias, TypeVar, cast

import msgspec
import trio

from atoma.errors import ProtocolError
from atoma.ports import SyncService

Q = TypeVar("Q")
R = TypeVar("R")
W = TypeVar("W", bound=msgspec.Struct)
V = TypeVar("V", bound=msgspec.Struct)

AnswerCall: TypeAlias = Callable[[SyncService, msgspec.Struct], Awaitable[msgspec.Struct]]
OpenFeed: TypeAlias = Callable[
    [SyncService, msgspec.Struct], AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]
]
LaneName: TypeAlias = Literal["query", "write", "sync"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row of the table, as transports read it.

    Attributes:
        name: Its name in the service and in every protocol.
        request: Type of the request message.
        reply: Type of the reply message, or of each item of a stream.
        answer: Calls a service for the reply; None for a stream.
        feed: Opens the stream of a service; None for a call.
        reads: Whether ``answer`` changes nothing, so that an answer for which there is no room may be made again.
        carries_rows: Whether its requests may be as large as the rows they write; all others are small.
        lane: The group of calls with which it may share a request of the HTTP client.
    """

    name: str
    request: type[msgspec.Struct]
    reply: type[msgspec.Struct]
    answer: AnswerCall | None = None
    feed: OpenFeed | None = None
    reads: bool = False
    carries_rows: bool = False
    lane: LaneName = "sync"

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream."""
        return self.feed is not None


MethodTable: TypeAlias = Mapping[str, Method]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaryMethod(Method, Generic[Q, R]):
    """A call with one reply, as proxies read it.

    Attributes:
        of: The method of a service.
        message: Makes the message for a request.
        result: Makes the result from a request and the reply to it; raises ``ProtocolError`` if they do not fit.
    """

    of: Callable[[SyncService], Callable[[Q], Awaitable[R]]]
    message: Callable[[Q], msgspec.Struct]
    result: Callable[[Q, msgspec.Struct], R]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMethod(Method, Generic[W, V]):
    """A call with a stream of replies, whose messages are the values of the service themselves.

    Attributes:
        of: The method of a service.
        item: Checks an item that arrived; raises ``ProtocolError`` if it has another type.
    """

    of: Callable[[SyncService], Callable[[W], AbstractAsyncContextManager[AsyncIterator[V]]]]
    item: Callable[[msgspec.Struct], V]


@dataclass(frozen=True, slots=True)
class Translation(Generic[Q, R, W, V]):
    """The translation of a method's requests and results to messages and back.

    Attributes:
        call: Type of the request message.
        reply: Type of the reply message.
        to_call: Makes the message for a request.
        to_request: Makes the request from a message and the caller's deadline on Trio's clock.
        to_reply: Makes the message for the result of a request.
        to_result: Makes the result of a request from a message.
    """

    call: type[W]
    reply: type[V]
    to_call: Callable[[Q], W]
    to_request: Callable[[W, float], Q]
    to_reply: Callable[[Q, R], V]
    to_result: Callable[[Q, V], R]


def unary(
    method: Callable[[SyncService, W], Awaitable[V]],
    request: type[W],
    reply: type[V],
    *,
    reads: bool = False,
    carries_rows: bool = False,
    lane: LaneName = "sync",
) -> UnaryMethod[W, V]:
    """Make the row of a call whose request and reply are sent as they are."""
    of = cast("Callable[[SyncService], Callable[[W], Awaitable[V]]]", attrgetter(method.__name__))

    def answer(service: SyncService, message: msgspec.Struct) -> Awaitable[msgspec.Struct]:
        return of(service)(_expect(message, request))

    return UnaryMethod(
        name=method.__name__, request=request, reply=reply, answer=answer, reads=reads, carries_rows=carries_rows,
        lane=lane, of=of, message=lambda asked: asked, result=lambda asked, message: _expect(message, reply),
    )  # fmt: skip


def translated(
    method: Callable[[SyncService, Q], Awaitable[R]],
    by: Translation[Q, R, W, V],
    *,
    reads: bool = False,
    carries_rows: bool = False,
    lane: LaneName = "sync",
) -> UnaryMethod[Q, R]:
    """Make the row of a call whose request and result are translated to other messages."""
    of = cast("Callable[[SyncService], Callable[[Q], Awaitable[R]]]", attrgetter(method.__name__))

    async def answer(service: SyncService, message: msgspec.Struct) -> msgspec.Struct:
        request = by.to_request(_expect(message, by.call), trio.current_effective_deadline())
        return by.to_reply(request, await of(service)(request))

    return UnaryMethod(
        name=method.__name__, request=by.call, reply=by.reply, answer=answer, reads=reads, carries_rows=carries_rows,
        lane=lane, of=of, message=by.to_call, result=lambda asked, message: by.to_result(asked, _expect(message, by.reply)),
    )  # fmt: skip


def stream(
    method: Callable[[SyncService, W], AbstractAsyncContextManager[AsyncIterator[V]]], request: type[W], item: type[V]
) -> StreamMethod[W, V]:
    """Make the row of a stream, whose request and items are sent as they are."""
    of = cast(
        "Callable[[SyncService], Callable[[W], AbstractAsyncContextManager[AsyncIterator[V]]]]",
        attrgetter(method.__name__),
    )

    def feed(service: SyncService, message: msgspec.Struct) -> AbstractAsyncContextManager[AsyncIterator[V]]:
        return of(service)(_expect(message, request))

    return StreamMethod(
        name=method.__name__, request=request, reply=item, feed=feed, of=of, item=lambda message: _expect(message, item)
    )


def _expect(message: msgspec.Struct, kind: type[W]) -> W:
    if not isinstance(message, kind):
        raise ProtocolError(f"expected {kind.__name__}, the channel gave {type(message).__name__}")
    return message


def table_of(port: type[object], *rows: Method) -> MethodTable:
    """Return ``rows`` by their names.

    Raises:
        TypeError: They are not the methods of ``port``.
    """
    table = {row.name: row for row in rows}
    check_methods(port, table)
    return table


def check_methods(kind: type[object], table: MethodTable) -> None:
    """Check that the public methods of ``kind`` are those of ``table``, so that none is forgotten.

    Raises:
        TypeError: They are not.
    """
    methods = {name for name in vars(kind) if not name.startswith("_")}
    if unlisted := sorted(methods - table.keys()):
        raise TypeError(f"{kind.__name__} has {', '.join(unlisted)}, for which the table of methods has no row")
    if missing := sorted(table.keys() - methods):
        raise TypeError(f"{kind.__name__} lacks {', '.join(missing)}, which the table of methods has")


def find_method(table: MethodTable, name: str, *, streams: bool) -> Method:
    """Return the row of the call or stream called ``name``.

    Raises:
        ProtocolError: There is none; nothing was sent.
    """
    found = table.get(name)
    if found is None or found.streams != streams:
        raise ProtocolError(f"the protocol has no {'stream' if streams else 'call'} {name!r}", maybe_sent=False)
    return found
