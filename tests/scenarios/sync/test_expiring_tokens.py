"""Sync over connections whose tokens expire: nobody notices, or the status says what to do."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from atoma import Client, Schema, StoreSpec, Sync, open_client, open_hub
from atoma.errors import TokenExpired
from atoma.plugins import Plugin
from atoma.ports import Peer, Principal, seeded_environment
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.paths import memory

pytestmark = pytest.mark.virtual_time
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


@dataclass
class Hourly:
    """Every token is good for an hour from the moment it is shown first."""

    shown: dict[str, float] = field(default_factory=dict)
    checks: int = 0

    async def verify(self, token: str, peer: Peer) -> Principal:
        self.checks += 1
        left = HOUR_S - (trio.current_time() - self.shown.setdefault(token, trio.current_time()))
        if left <= 0:
            raise TokenExpired("the token has expired")
        return Principal("ada", expires_in_s=left)


class SignIn:
    """A token function: a new serial each time, unless the identity provider is down."""

    def __init__(self) -> None:
        self.serial = 0
        self.down = False

    async def __call__(self) -> str:
        if self.down:
            raise OSError("the identity provider is down")
        self.serial += 1
        return f"token {self.serial}"


@asynccontextmanager
async def synced(token: str | Callable[[], Awaitable[str]]) -> AsyncGenerator[tuple[Client, Hourly]]:
    network, verifier = MemoryNetwork(), Hourly()
    hub = open_hub(SCHEMA, SQLiteHubStore(memory()), verifier=verifier, environment=seeded_environment(1))
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(memory())),
        Remote(MemoryTransport(network, token=token)),
        Sync(stores=[NOTES]),
    ]
    client = open_client(SCHEMA, plugins=plugins, policy="sync-queue", environment=seeded_environment(2))
    async with hub as host, network.listen(host), client as opened:
        yield opened, verifier


async def test_sync_goes_on_for_hours_over_one_connection() -> None:
    sign_in = SignIn()
    async with synced(sign_in) as (client, verifier):
        for number in range(6):
            handle = await client.store(NOTES).insert(Note(id=f"n{number}"))
            with trio.fail_after(1):
                await handle.accepted()
            await trio.sleep(HOUR_S / 2)
            assert client.sync.status.state == "online"
        assert verifier.checks == sign_in.serial == 4  # the first, and one shortly before each of three hours is over


async def test_a_token_text_that_has_expired_is_shown_and_asked_about_rarely() -> None:
    async with synced("the only one") as (client, verifier):
        handle = await client.store(NOTES).insert(Note(id="a"))
        with trio.fail_after(1):
            await handle.accepted()
        await trio.sleep(HOUR_S + 60)
        status = client.sync.status
        assert status.state == "stalled"
        assert status.error is not None
        assert status.error.code == "AUTH_EXPIRED"
        assert "expired" in status.reason
        asked = verifier.checks
        await trio.sleep(HOUR_S)
        assert 50 < verifier.checks - asked < 130  # every half minute to minute
        waiting = await client.store(NOTES).insert(Note(id="b"))
        await trio.sleep(60)
        assert waiting.state == "queued"  # nothing is lost


@pytest.mark.paths
async def test_sync_recovers_by_itself_once_there_are_tokens_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "atoma.transports")
    sign_in = SignIn()
    async with synced(sign_in) as (client, _):
        await trio.sleep(10)
        sign_in.down = True
        await trio.sleep(1.2 * HOUR_S)
        states: list[str] = [client.sync.status.state]
        handle = await client.store(NOTES).insert(Note(id="a"))
        sign_in.down = False
        with trio.fail_after(61):
            await handle.accepted()
        states.append(client.sync.status.state)
        assert states == ["stalled", "online"]
