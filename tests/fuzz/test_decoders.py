"""Every decoder gives a value or its own error, in bounded time and memory, whatever the peer sends."""

from __future__ import annotations

import time
import tracemalloc
from typing import cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atoma.errors import ProtocolError
from atoma_transports.frames.envelope import decode_frame
from atoma_transports.grpc.convert import pack
from atoma_transports.protocol.json_mapping import decode_json, to_json
from tests.fuzz.decoders import DECODERS, IN_JSON, IN_PROTOBUF, Decoder
from tests.fuzz.grammar import ALL_CHECKS, MESSAGES, full, messages
from tests.fuzz.hostile import every_protobuf_twist, every_twist, plain
from tests.fuzz.spelling import Pairs, write_json, write_msgpack

FIXED_BYTES = 1_000_000
SECONDS = 2.0  # generous: a decoder takes less than a millisecond for what is sent here, but a busy machine is slow
every = pytest.mark.parametrize("name", DECODERS)
bounded = settings(max_examples=40, suppress_health_check=ALL_CHECKS)


def check(decoder: Decoder, data: bytes) -> bool:
    """Whether ``data`` is taken; fails when it is refused in another way than it may be."""
    began = time.process_time()
    try:
        decoder.read(data)
    except decoder.errors as error:
        if isinstance(error, ProtocolError):
            text = str(error)
            assert len(text) < 1000, "the text of an error repeats what the peer sent"
            assert "Traceback" not in text
            text.encode()
        return False
    finally:
        assert time.process_time() - began < SECONDS
    return True


@every
@bounded
@given(data=st.data())
def test_what_is_valid_is_taken(name: str, data: st.DataObject) -> None:
    decoder = DECODERS[name]
    wire = data.draw(decoder.valid)
    if name == "meaning":
        assume(check(decoder, wire))  # a valid message may mean nothing
    assert check(decoder, wire)


@every
@bounded
@given(data=st.data())
def test_one_thing_wrong_is_the_decoders_own_error(name: str, data: st.DataObject) -> None:
    check(DECODERS[name], data.draw(DECODERS[name].wrong))


@every
@bounded
@given(data=st.binary(max_size=300))
def test_noise_is_the_decoders_own_error(name: str, data: bytes) -> None:
    check(DECODERS[name], data)


@bounded
@given(data=st.data())
def test_a_key_that_comes_twice_in_json_is_refused(data: st.DataObject) -> None:
    kind = IN_JSON[data.draw(st.sampled_from(sorted(IN_JSON)))]
    tree = cast("dict[object, object]", to_json(data.draw(messages(kind))))
    key = data.draw(st.sampled_from(sorted(tree, key=str)))
    with pytest.raises(ProtocolError):
        decode_json(write_json(Pairs((*tree.items(), (key, tree[key])))), kind)


@bounded
@given(data=st.data())
def test_a_frame_larger_than_the_limit_is_refused(data: st.DataObject) -> None:
    wire = data.draw(DECODERS["frame"].valid)
    with pytest.raises(ProtocolError):
        decode_frame(wire, data.draw(st.integers(0, len(wire) - 1)))


@every
@settings(max_examples=20, suppress_health_check=ALL_CHECKS)
@given(data=st.data())
def test_memory_is_bounded_by_what_was_sent(name: str, data: st.DataObject) -> None:
    decoder = DECODERS[name]
    wire = data.draw(decoder.wrong)
    tracemalloc.start()
    try:
        check(decoder, wire)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= FIXED_BYTES + decoder.memory * len(wire), f"{peak} bytes for {len(wire)}"


def test_a_record_that_lies_about_its_length_is_refused_at_once() -> None:
    body = b"i\xff\xff\xff\xff" + b"x" * 100
    with pytest.raises(ProtocolError):  # and not when that much has come
        DECODERS["records"].read(body)


@pytest.mark.parametrize("calls", [[], [{"id": -1}], [{"id": 2**53 + 1}], [{"budget_ms": 2**40 + 1}], [{"id": 0}] * 2])
def test_a_batch_out_of_bounds_is_refused(calls: list[dict[str, object]]) -> None:
    call: dict[str, object] = {"id": 0, "method": "pull", "message": {}}
    body = {"version": 1, "id": "0123456789abcdef", "calls": [call | changed for changed in calls]}
    for name, write in (("batch", write_msgpack), ("json-batch", write_json)):
        with pytest.raises(ProtocolError):
            DECODERS[name].read(write(body))


@pytest.mark.parametrize("name", MESSAGES)
def test_each_field_with_each_twist(name: str) -> None:
    message = full(MESSAGES[name])
    index = bytes([sorted(MESSAGES).index(name)])
    for tree in every_twist(plain(message)):
        check(DECODERS["message"], index + write_msgpack(tree))
    if name in IN_JSON:
        index = bytes([sorted(IN_JSON).index(name)])
        for tree in every_twist(to_json(message)):
            check(DECODERS["json-message"], index + write_json(tree))
    if name in IN_PROTOBUF:
        index = bytes([sorted(IN_PROTOBUF).index(name)])
        for data in every_protobuf_twist(pack(message)):
            check(DECODERS["protobuf-message"], index + data)
