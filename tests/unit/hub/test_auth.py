"""A verifier that asks a function which blocks."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio

from atoma.errors import AuthenticationError, ConfigurationError
from atoma.hub import ThreadVerifier
from atoma.ports import Peer
from atoma.ports.service import Principal

PEER = Peer("127.0.0.1", True, "websocket")


@pytest.mark.parametrize("answer", ["ada", Principal("ada"), Principal("ada", {"team": "red"})])
async def test_a_subject_or_a_principal_is_who_it_is(answer: Any) -> None:
    asked: list[tuple[str, Peer, bool]] = []

    def verify(token: str, peer: Peer) -> Any:
        asked.append((token, peer, threading.current_thread() is threading.main_thread()))
        return answer

    found = await ThreadVerifier(verify).verify("token", PEER)
    assert found == (answer if isinstance(answer, Principal) else Principal("ada"))
    assert asked == [("token", PEER, False)]


async def test_none_is_nobody_and_an_error_is_its_own() -> None:
    with pytest.raises(AuthenticationError, match="unknown"):
        await ThreadVerifier(lambda token, peer: None).verify("token", PEER)
    with pytest.raises(ZeroDivisionError):
        await ThreadVerifier(lambda token, peer: str(1 / 0)).verify("token", PEER)


async def test_a_call_that_is_given_up_keeps_its_place_until_it_ends() -> None:
    began, go_on, running = threading.Event(), threading.Event(), 0

    def verify(token: str, peer: Peer) -> str:
        nonlocal running
        running += 1
        began.set()
        go_on.wait(10)
        running -= 1
        return token

    verifier = ThreadVerifier(verify, at_once=1)
    with trio.move_on_after(0.05) as given_up:
        await verifier.verify("first", PEER)
    assert given_up.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(verifier.verify, "second", PEER)
        await trio.sleep(0.05)
        assert running == 1
        go_on.set()
    assert running == 0


async def _later(token: str, peer: Peer) -> str:
    return token


@pytest.mark.parametrize(("verify", "at_once"), [(_later, 1), ("ada", 1), (print, 0), (print, "8")])
def test_what_cannot_be_asked_is_refused(verify: Any, at_once: Any) -> None:
    with pytest.raises(ConfigurationError, match="ThreadVerifier"):
        ThreadVerifier(verify, at_once=at_once)
