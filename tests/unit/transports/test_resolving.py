"""What became of a write, on its way over a wire."""

from __future__ import annotations

import pytest

from atoma.codes import CODES
from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import (
    OperationContext,
    Resolution,
    ResolveRequest,
    WriteItemResult,
    WriteResult,
    status_of,
)
from atoma.contracts.failures import refusal
from atoma.contracts.values import ErrorInfo
from atoma.errors import ProtocolError
from atoma_transports.adapters import METHODS
from atoma_transports.adapters.operations import OperationAdapter, resolve_reply, resolve_request
from atoma_transports.calls.errors import error_of
from atoma_transports.protocol import RemoteOpResult, ResolveCall, ResolveReply

REQUEST = ResolveRequest("k", OperationContext("trace", "policy"), ("remote-memory",))
ITEMS = (
    WriteItemResult("a", True, True, 7, {"text": "ü", "blob": b"\x00", "none": None}),
    WriteItemResult("a", False, error=ErrorInfo("CONFLICT", "there already", info={"current_version": "7"})),
    WriteItemResult("gone", True, True),
)


def over_the_wire(resolution: Resolution) -> Resolution:
    travelled = decode(encode(resolve_reply(resolution)), ResolveReply)
    return OperationAdapter().from_remote_resolution(REQUEST, travelled)


def test_the_answer_that_was_lost_arrives_whole() -> None:
    found = over_the_wire(Resolution("k", WriteResult(status_of(ITEMS), ITEMS)))
    assert found.result is not None
    assert (found.idem, found.result.status, found.result.items) == ("k", "partial", ITEMS)
    assert found.result.receipts == (None,) * 3
    assert (found.meta.source, found.meta.trace_id, found.meta.policy) == ("remote", "trace", "policy")


def test_abandoned_arrives_as_such() -> None:
    found = over_the_wire(Resolution("k"))
    assert found.abandoned
    assert found.meta.source == "remote"


def test_the_call_carries_the_key_and_the_trace_alone() -> None:
    call = decode(encode(ResolveCall("k", "trace")), ResolveCall)
    assert resolve_request(call, 9.0) == ResolveRequest("k", OperationContext("trace", deadline=9.0))
    assert (METHODS["resolve"].request, METHODS["resolve"].reply) == (ResolveCall, ResolveReply)


A, B = RemoteOpResult(0, "a"), RemoteOpResult(1, "b")


@pytest.mark.parametrize(
    "reply",
    [
        ResolveReply(abandoned=True, results=(A,)),
        ResolveReply(abandoned=False),
        ResolveReply(abandoned=False, results=(B,)),
        ResolveReply(abandoned=False, results=(A, A)),
        ResolveReply(abandoned=False, results=(A, RemoteOpResult(2, "c"))),
        ResolveReply(abandoned=False, results=(RemoteOpResult(0, "a", ok=False),)),
        ResolveReply(abandoned=False, results=(RemoteOpResult(0, "a", error=ErrorInfo("DENIED", "no")),)),
    ],
)
def test_a_reply_that_contradicts_itself_is_refused(reply: ResolveReply) -> None:
    with pytest.raises(ProtocolError):
        OperationAdapter().from_remote_resolution(REQUEST, reply)


def test_results_in_any_order_are_put_in_order() -> None:
    found = OperationAdapter().from_remote_resolution(REQUEST, ResolveReply(False, (B, A)))
    assert found.result is not None
    assert [item.id for item in found.result.items] == ["a", "b"]


@pytest.mark.parametrize("code", ["ABANDONED", "KEY_EXPIRED"])
def test_the_codes_are_final(code: str) -> None:
    assert (CODES[code].category, CODES[code].retryable) == ("outcome", False)
    error = error_of(refusal(code, "no"))
    assert getattr(error, "remote_code", "") == code
