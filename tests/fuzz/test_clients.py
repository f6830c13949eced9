"""Our transports against hostile servers: a typed error within a second, and nothing is left of the connection."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoma.contracts.codec import encode
from atoma.errors import ConnectFailed, ProtocolError
from atoma_transports.frames.envelope import Welcome, decode_frame, encode_frame
from atoma_transports.grpc.convert import pack
from atoma_transports.grpc.messages import HelloReply
from tests.fuzz.attacks import FRAMES
from tests.fuzz.clients import CLIENTS, KNOWN_REPLIES, Reply, check_meeting, chunked, grpc_answer, spoken
from tests.fuzz.grammar import ALL_CHECKS
from tests.fuzz.peers import data_frame, headers_frame, prefixed
from tests.fuzz.stage import STRICT

servers = pytest.mark.parametrize("name", CLIENTS)


@servers
def test_every_known_reply(name: str) -> None:
    for data in KNOWN_REPLIES[name]:
        for streams in (False, True):
            try:
                check_meeting(name, Reply(data, streams=streams))
            except AssertionError as error:
                error.add_note(f"after {data!r}")
                raise


@servers
@settings(max_examples=30, suppress_health_check=ALL_CHECKS)
@given(data=st.data())
def test_a_hostile_reply(name: str, data: st.DataObject) -> None:
    check_meeting(name, data.draw(CLIENTS[name].replies))


@pytest.mark.parametrize(("size", "calls"), [(0, 1), (-1, 1), (1000, 0), (1000, -(2**63))])
def test_a_greeting_with_bounds_that_allow_nothing_is_no_greeting(size: int, calls: int) -> None:
    welcome = spoken(encode_frame("welcome", payload=encode(Welcome("alice", size, calls))))
    hello = grpc_answer(1, prefixed(pack(HelloReply("alice", size, calls))))
    assert isinstance(check_meeting("websocket", Reply(welcome, first=True)), ProtocolError)
    assert isinstance(check_meeting("grpc", Reply(hello, first=True)), ConnectFailed)


@pytest.mark.parametrize("streams", [False, True])
def test_what_says_that_it_is_too_large_is_not_waited_for(streams: bool) -> None:
    unfinished = chunked(b"i\xff\xff\xff\xff").removesuffix(b"0\r\n\r\n")
    head = headers_frame(3, {":status": "200", "content-type": "application/grpc+proto"}.items())
    for name, data in (("http", unfinished), ("grpc", head + data_frame(3, prefixed(b"", size=2**32 - 1)))):
        assert isinstance(check_meeting(name, Reply(data, streams=streams, calls=2)), ProtocolError), name


def malformed(frame: bytes) -> bool:
    try:
        decode_frame(frame, STRICT.frame_bytes)
    except ProtocolError:
        return True
    return False


@pytest.mark.parametrize("streams", [False, True])
def test_a_malformed_frame_ends_the_connection_at_once(streams: bool) -> None:
    frames = [frame for frame in FRAMES if malformed(frame)]
    assert len(frames) >= 10
    for frame in frames:
        assert isinstance(check_meeting("websocket", Reply(spoken(frame), streams=streams)), ProtocolError), frame
