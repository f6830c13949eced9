"""What the other side sent, delivered to the calls that it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from atoma_transports.grpc._driver.calls import CallReset, ConnectionLost
from atoma_transports.grpc._driver.stream import CallStream, Carrier, Headers


def deliver(connection: Carrier, events: Iterable[Event]) -> None:
    """Tell each call what ``events`` say; what concerns no call that is still there is dropped."""
    for event in events:
        take = _TAKE.get(type(event))
        if take is not None:
            take(connection, event)


def _request(connection: Carrier, event: RequestReceived) -> None:
    if connection.accept is not None and connection.lost is None:
        stream = CallStream(connection, event.stream_id)
        connection.accept(stream, cast("Headers", event.headers))


def _response(connection: Carrier, event: ResponseReceived) -> None:
    stream = connection.streams.get(event.stream_id)
    if stream is not None:
        stream.take_headers(cast("Headers", event.headers))


def _data(connection: Carrier, event: DataReceived) -> None:
    stream = connection.streams.get(event.stream_id)
    if stream is None:
        connection.arrived(event.flow_controlled_length)
        connection.consumed(event.flow_controlled_length)
    else:
        stream.take_data(event.data, event.flow_controlled_length)


def _trailers(connection: Carrier, event: TrailersReceived) -> None:
    stream = connection.streams.get(event.stream_id)
    if stream is not None:
        stream.take_trailers(cast("Headers", event.headers))


def _end(connection: Carrier, event: StreamEnded) -> None:
    stream = connection.streams.get(event.stream_id)
    if stream is not None:
        stream.take_end()


def _reset(connection: Carrier, event: StreamReset) -> None:
    stream = connection.streams.get(event.stream_id)
    if stream is not None:
        stream.fail(CallReset(event.error_code))


def _window(connection: Carrier, event: WindowUpdated) -> None:
    if event.stream_id:
        stream = connection.streams.get(event.stream_id)
        if stream is not None:
            stream.wake_sender()
    else:
        _all_windows(connection, event)


def _all_windows(connection: Carrier, _event: Event) -> None:
    for stream in connection.streams.values():
        stream.wake_sender()


def _goaway(connection: Carrier, event: ConnectionTerminated) -> None:
    connection.going_away = True
    last = event.last_stream_id or 0
    for stream in list(connection.streams.values()):
        if stream.id > last and stream.scope is None:
            stream.fail(ConnectionLost("the peer takes no more calls", maybe_sent=False))
    if event.error_code != ErrorCodes.NO_ERROR:
        connection.lose(f"the peer ended the connection ({event.error_code!r}, {event.additional_data or b''!r})")
    elif not connection.streams:
        connection.goodbye("the peer takes no more calls")


_TAKE: dict[type[Event], Callable[[Carrier, Any], None]] = {
    RequestReceived: _request,
    ResponseReceived: _response,
    DataReceived: _data,
    TrailersReceived: _trailers,
    StreamEnded: _end,
    StreamReset: _reset,
    WindowUpdated: _window,
    RemoteSettingsChanged: _all_windows,
    ConnectionTerminated: _goaway,
}
