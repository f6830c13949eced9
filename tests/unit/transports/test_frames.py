"""Frames: what is written is read back, and nothing else gets through."""

from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atoma.codes import CODES
from atoma.contracts.failures import refusal
from atoma.errors import AtomaError, AuthenticationError, ProtocolError, RemoteError
from atoma_transports.calls.call import budget_now, deadline_of
from atoma_transports.calls.errors import error_of, info_of
from atoma_transports.frames.envelope import KINDS, Auth, decode_frame, encode_frame

SIZE = 10_000


@given(
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 2**53),
    st.binary(max_size=50),
    st.text(max_size=15),
    st.integers(-1, 2**40),
    st.integers(0, 1024),
)
def test_a_frame_is_read_as_it_was_written(
    kind: str, id: int, payload: bytes, text: str, budget_ms: int, credit: int
) -> None:
    data = encode_frame(kind, id, payload, method=text, budget_ms=budget_ms, trace_id=text, credit=credit)  # type: ignore[arg-type]
    frame = decode_frame(data, SIZE)
    assert (frame.kind, frame.id, frame.payload, frame.method, frame.budget_ms, frame.trace_id, frame.credit) == (
        kind,
        id,
        payload,
        text,
        budget_ms,
        text,
        credit,
    )


@given(st.binary(max_size=200))
def test_noise_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_frame(data, SIZE)


@given(st.data())
def test_a_damaged_frame_is_a_frame_or_a_protocol_error(data: st.DataObject) -> None:
    good = bytearray(encode_frame("call", 5, b"payload", method="pull", budget_ms=100, trace_id="t"))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        frame = decode_frame(bytes(good), SIZE)
    except ProtocolError:
        return
    assert frame.kind in KINDS
    assert 0 <= frame.id <= 2**53


def test_the_size_limit_is_exact() -> None:
    data = encode_frame("ping")
    assert decode_frame(data, len(data)).kind == "ping"
    with pytest.raises(ProtocolError, match="limit"):
        decode_frame(data, len(data) - 1)


async def budget_until(seconds: float) -> int:
    """The budget under a deadline ``seconds`` from now."""
    seen: list[int] = []
    with trio.CancelScope(deadline=trio.current_time() + seconds):
        seen.append(budget_now())
        await trio.lowlevel.checkpoint()
    return seen[0]


@pytest.mark.virtual_time
async def test_deadlines_travel_as_budgets() -> None:
    await trio.sleep(100)
    assert budget_now() == -1
    assert deadline_of(-1) == math.inf
    assert [await budget_until(seconds) for seconds in (1.2345, -5, 1e15)] == [1235, 0, 2**40]
    assert deadline_of(1500) == trio.current_time() + 1.5


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Auth("secret"))


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_comes_back_as_the_error_it_was(code: str) -> None:
    info = refusal(code, "why", retry_after_ms=250, info={"a": "b"})
    error = error_of(info)
    assert isinstance(error, AtomaError)
    if isinstance(error, RemoteError):
        assert info_of(error) == info
        assert (error.remote_code, error.remote_retryable) == (code, CODES[code].retryable)
    else:
        assert isinstance(error, AuthenticationError | ProtocolError)
        assert not error.retryable
