"""A hostile message in a session with the real server, for every handler; by the grammar, or by a coverage-guided fuzzer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio
import trio.testing
from hypothesis import strategies as st

from atoma.ports.tasks import single_error
from tests.fuzz.attacks import Attack, on_frames, on_grpc, on_http, on_websocket
from tests.fuzz.peers import FramePeer, GrpcPeer, HttpPeer, Peer, WebSocketPeer
from tests.fuzz.stage import WITHIN_S, Stage, open_stage


@dataclass(frozen=True)
class Session:
    """One handler as it is attacked.

    Attributes:
        peer: Speaks to it.
        attacks: What the grammar has against it.
    """

    peer: Callable[[Stage], Peer]
    attacks: st.SearchStrategy[Attack]

    @property
    def valid(self) -> st.SearchStrategy[bytes]:
        """Seeds of the coverage-guided fuzzer."""
        return self.attacks.filter(lambda attack: not attack.first).map(lambda attack: attack.data)


SESSIONS: dict[str, Session] = {
    "frame-session": Session(FramePeer, on_frames()),
    "websocket-session": Session(WebSocketPeer, on_websocket()),
    "http-session": Session(HttpPeer, on_http()),
    "grpc-session": Session(GrpcPeer, on_grpc()),
}


async def attack_session(session: Session, attack: Attack, *, silent: bool) -> None:
    """One hostile message, and everything that has to be true after it.

    Args:
        session: The handler.
        attack: The message.
        silent: The peer says nothing after it, instead of asking on or ending its side.
    """
    async with open_stage(strict=silent) as stage:
        control = session.peer(stage)
        await control.begin()
        attacker = session.peer(stage)
        if not attack.first:
            await attacker.begin()
        elif isinstance(attacker, FramePeer) and not isinstance(attacker, WebSocketPeer):
            await attacker.connect()
        elif isinstance(attacker, WebSocketPeer):
            attacker.stream = stage.dial()  # what is sent is the handshake itself
        try:
            await attacker.attack(attack.data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it was dismissed before the end
        if not silent:
            await expect_answer(control, "during")
        await settle(attacker, attack, silent=silent)
        if silent:
            control = session.peer(stage)
            await control.begin()
        await expect_answer(control, "after")
        await control.hang_up()
        await attacker.hang_up()
        assert stage.host.most <= 2 * stage.limits.calls + 1, "too many handlers at once"


async def expect_answer(peer: Peer, when: str) -> None:
    """The connection works."""
    with trio.move_on_after(WITHIN_S):
        assert await peer.until_answered(), f"the control connection was closed {when} the attack"
        return
    raise AssertionError(f"the control connection was not answered {when} the attack")


async def settle(attacker: Peer, attack: Attack, *, silent: bool) -> None:
    """Within a second the connection works again or is closed."""
    if isinstance(attacker, WebSocketPeer) and attack.first:
        await settle_strangers(attacker, silent=silent)
        return
    if silent:
        attacker.mute = True
        with trio.move_on_after(WITHIN_S) as patience:
            await attacker.until_closed()
        assert not patience.cancelled_caught, "a silent peer was kept"
        return
    if attack.whole and not attack.first:
        with trio.move_on_after(WITHIN_S) as patience:
            await attacker.until_answered()
        assert not patience.cancelled_caught, "neither an answer nor a close within a second"
    else:
        with trio.move_on_after(WITHIN_S):
            await attacker.until_closed()
    if not attacker.closed:
        try:
            await attacker.end()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


async def settle_strangers(attacker: WebSocketPeer, *, silent: bool) -> None:
    """Bytes instead of a handshake: the stream ends once the peer's side does, or after a while of silence."""
    if not silent:
        await attacker.end()
    with trio.move_on_after(WITHIN_S) as patience:
        while await attacker.stream.receive_some():
            pass
    assert not patience.cancelled_caught, "a stranger was kept"


def check_attack(name: str, attack: Attack, *, silent: bool) -> None:
    """:func:`attack_session` in virtual time and a world of its own."""

    async def run() -> None:
        await attack_session(SESSIONS[name], attack, silent=silent)

    try:
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        failure = single_error(group)
    else:
        return
    raise failure


def attack_once(name: str, data: bytes) -> None:
    """One attack with any bytes."""
    check_attack(name, Attack(data, whole=False), silent=False)
