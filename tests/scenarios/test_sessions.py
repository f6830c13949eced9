"""Who is connected, and how an operator ends it: over every transport, at once, and with nothing lost."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from atoma import Sync, open_client
from atoma.contracts.execution import OperationContext, QueryRequest, WriteOptions, WriteRequest
from atoma.contracts.failures import code_of
from atoma.contracts.mutations import Op
from atoma.contracts.sync import NotifyRequest
from atoma.errors import AtomaError, AuthenticationError, ConfigurationError, RemoteError, what_helps
from atoma.hub import Hub, SessionInfo, open_hub
from atoma.plugins import Plugin
from atoma.ports import Environment, Peer, Principal, ServiceHost, SyncService, Transport, seeded_environment
from atoma.query.plans import every_row
from atoma.schema import Schema, StoreSpec
from atoma.testing.conformance.hosts import HookedHost, Moment
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.adapters import ServiceProxy
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.unit.hub.kit import Card

CARDS = StoreSpec("cards", Card, scope="board")
SCHEMA = Schema(CARDS)
BOARD = "main"
TRANSPORTS = ["memory", "websocket", "grpc", "http"]
CONTEXT = OperationContext("trace")
EVERYTHING = QueryRequest(every_row("cards"), CONTEXT)


@dataclass
class Issuer:
    """Tokens are ``subject/serial``; those in ``revoked`` are refused.

    Attributes:
        asked: The tokens it was asked about.
        before_answer: Awaited before each answer.
    """

    revoked: set[str] = field(default_factory=set[str])
    asked: list[str] = field(default_factory=list[str])
    claims: dict[str, str] = field(default_factory=dict[str, str])
    expires_in_s: float | None = None
    before_answer: Callable[[], Any] = trio.lowlevel.checkpoint

    async def verify(self, token: str, peer: Peer) -> Principal:
        self.asked.append(token)
        good = token not in self.revoked
        await self.before_answer()
        subject, _, serial = token.partition("/")
        if not serial or not good:
            raise AuthenticationError("the token is not known here")
        return Principal(subject, dict(self.claims), self.expires_in_s)


class Doors(HookedHost):
    """A hub with a door at every call."""

    def __init__(self, hub: Hub, on_call: Callable[[Moment, str], Any]) -> None:
        super().__init__(hub, on_call)
        self.registry = hub.registry


@asynccontextmanager
async def open_road(host: ServiceHost, transport: str) -> AsyncGenerator[Callable[[Any], Transport]]:
    """Makes transports with a token to ``host``."""
    if transport == "memory":
        network = MemoryNetwork()
        async with network.listen(host):
            yield lambda token: MemoryTransport(network, token=token)
        return
    async with open_server(host, "127.0.0.1:0") as address:
        made: dict[str, Callable[[Any], Transport]] = {
            "websocket": lambda token: WebSocketTransport(f"ws://{address}/sync", token=token),
            "grpc": lambda token: GrpcTransport(address, token=token),
            "http": lambda token: HttpTransport(f"http://{address}", token=token),
        }
        yield made[transport]


@asynccontextmanager
async def connected(transport: Transport) -> AsyncGenerator[SyncService]:
    async with transport.connect() as channel:
        yield ServiceProxy(channel)


def a_hub(issuer: Issuer, **options: Any) -> Any:
    return open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=issuer, **options)


def subjects(hub: Hub) -> list[str]:
    return sorted({session.subject for session in hub.sessions()})


async def until(true: Callable[[], object]) -> None:
    with trio.fail_after(60):
        while not true():
            await trio.sleep(0.01)


async def refusal(work: Callable[[], Any]) -> AtomaError:
    """What ``work`` raises."""
    with trio.fail_after(60), pytest.raises(AtomaError) as refused:
        await work()
    return refused.value


async def listen(service: SyncService, begun: trio.Event) -> None:
    async with service.notify(NotifyRequest((BOARD,))) as hints:
        await anext(hints)
        begun.set()
        async for _ in hints:
            pass


# ---------------------------------------------------------------------- who is connected


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_whoever_is_connected_is_listed_until_they_leave(transport: str) -> None:
    issuer = Issuer(expires_in_s=3600.0)
    environment = replace(Environment(), wall_ms=lambda: 1_700_000_000_000)
    async with a_hub(issuer, environment=environment) as hub, open_road(hub, transport) as road:
        assert hub.sessions() == ()
        async with connected(road("ann/1")) as ann, connected(road("bob/1")) as bob:
            await ann.query(EVERYTHING)
            await bob.query(EVERYTHING)
            sessions = hub.sessions()
            assert {session.subject for session in sessions} == {"ann", "bob"}
            for session in sessions:
                assert isinstance(session, SessionInfo)
                assert session.peer.transport == transport
                assert session.peer.loopback
                assert 0 <= 1_700_000_000_000 - session.since_ms < 60_000
                assert session.verified_ms == pytest.approx(session.since_ms, abs=1000)
                assert session.expires_ms == session.verified_ms + 3_600_000
            assert list(sessions) == sorted(sessions, key=lambda session: session.since_ms)
            assert "ann/1" not in repr(sessions) + repr(list(hub.registry)), "a token is nobody's business"
        await until(lambda: hub.sessions() == ())


async def test_whoever_is_refused_is_not_listed() -> None:
    async with a_hub(Issuer()) as hub, open_road(hub, "memory") as road:
        error = await refusal(road("ann").connect().__aenter__)
        assert code_of(error) == "UNAUTHENTICATED"
        assert hub.sessions() == ()


@pytest.mark.virtual_time
async def test_a_renewed_token_goes_on_with_the_session() -> None:
    serial = 0

    async def token() -> str:
        nonlocal serial
        serial += 1
        return f"ann/{serial}"

    async with (
        a_hub(Issuer(expires_in_s=1000.0), environment=seeded_environment(1)) as hub,
        open_road(hub, "memory") as road,
        connected(road(token)),
    ):
        (first,) = hub.sessions()
        await trio.sleep(5000)
        (later,) = hub.sessions()
        assert serial > 3
        assert (later.since_ms, later.verified_ms > first.verified_ms) == (first.since_ms, True)
        assert later.expires_ms == later.verified_ms + 1_000_000


# ---------------------------------------------------------------------- ending it


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_is_under_way_ends_at_once_and_says_what_helps(transport: str) -> None:
    """A stream, and a call that waits; the calls of others go on."""
    issuer, held = Issuer(), trio.Event()
    waiting: list[str] = []

    async def door(moment: Moment, method: str) -> None:
        if (moment, method) == ("before", "query"):
            waiting.append(method)
            await held.wait()

    async with a_hub(issuer) as hub, open_road(Doors(hub, door), transport) as road:
        async with connected(road("ann/1")) as ann, connected(road("bob/1")) as bob, trio.open_nursery() as nursery:
            errors: list[AtomaError] = []
            answered: list[object] = []
            begun, begun_too = trio.Event(), trio.Event()

            async def told(work: Callable[[], Any]) -> None:
                errors.append(await refusal(work))

            async def query(service: SyncService) -> None:
                answered.append(await service.query(EVERYTHING))

            nursery.start_soon(told, lambda: listen(ann, begun))
            nursery.start_soon(told, lambda: ann.query(EVERYTHING))
            nursery.start_soon(query, bob)
            nursery.start_soon(partial(listen, bob, begun_too))
            await begun.wait()
            await begun_too.wait()
            await until(lambda: len(waiting) == 2)
            issuer.revoked.add("ann/1")
            count = sum(session.subject == "ann" for session in hub.sessions())
            assert await hub.end("ann", reason="you have left the company") == count > 0
            await until(lambda: subjects(hub) == ["bob"])
            await until(lambda: len(errors) == 2)
            for error in errors:
                assert code_of(error) == "SESSION_ENDED", repr(error)
                assert what_helps(error) == "retry", "and then the verifier says what"
                assert "you have left the company" in str(error)
            error = await refusal(lambda: ann.query(EVERYTHING))
            assert code_of(error) in ("UNAUTHENTICATED", "SESSION_ENDED", "CHANNEL_BROKEN")
            error = await refusal(road("ann/1").connect().__aenter__)
            assert code_of(error) == "UNAUTHENTICATED"
            held.set()
            await until(lambda: answered)
            nursery.cancel_scope.cancel()
        assert await hub.end("ann") == 0


@pytest.mark.parametrize("body", ["GET", "batch as JSON", "batch as msgpack"])
async def test_events_and_batches_end_too(body: str) -> None:
    """What our own client does not ask for, or asks for in parts."""
    import msgspec

    held = trio.Event()
    waiting: list[str] = []

    async def door(moment: Moment, method: str) -> None:
        if (moment, method) == ("before", "query"):
            waiting.append(method)
            await held.wait()

    kind = "application/vnd.msgpack" if body == "batch as msgpack" else "application/json"
    plan = {"source": ["store", "cards"]}
    asked: object = msgspec.msgpack.encode([1, plan, []]) if kind.endswith("msgpack") else {"plan": plan}
    query = {"ops": [{"index": 0, "name": "query", "store": "cards", "query": asked}]}
    batch: dict[str, Any] = {"version": 1, "id": "batch-0001", "calls": [{"id": 1, "method": "query", "message": query, "budget_ms": -1, "trace_id": ""}]}  # fmt: skip
    data = msgspec.msgpack.encode(batch) if kind.endswith("msgpack") else json.dumps(batch).encode()
    head = f"GET /v1/notify?scope={BOARD}" if body == "GET" else "POST /v1/batch"
    async with a_hub(Issuer()) as hub, open_server(Doors(hub, door), "127.0.0.1:0") as address:
        host, _, port = address.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            fields = f"host: {address}\r\nauthorization: Bearer ann/1\r\n"
            if body != "GET":
                fields += f"content-type: {kind}\r\ncontent-length: {len(data)}\r\n"
            await stream.send_all(f"{head} HTTP/1.1\r\n{fields}\r\n".encode() + (b"" if body == "GET" else data))
            answer = b""
            if body == "GET":
                while b"event: hint" not in answer:
                    answer += await stream.receive_some()
            else:
                await until(lambda: waiting)
            assert await hub.end("ann") == 1
            with trio.fail_after(60):
                while b"SESSION_ENDED" not in answer:
                    data = await stream.receive_some()
                    assert data, answer
                    answer += data
            assert hub.sessions() == ()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_write_that_was_under_way_is_done_once(transport: str) -> None:
    """Its session ends after the hub has decided, and before the answer goes out: asked again, it is the same answer."""
    decided, held = trio.Event(), trio.Event()

    async def door(moment: Moment, method: str) -> None:
        if (moment, method) == ("after", "write") and not decided.is_set():
            decided.set()
            await held.wait()

    entry = Op("create", "cards", "1", {"title": "t", "lane": "todo", "rank": 0.0, "done": 0, "board": BOARD}, scope=BOARD)  # fmt: skip
    request = WriteRequest((entry,), WriteOptions(), CONTEXT, Environment().ids())
    async with a_hub(Issuer()) as hub, open_road(Doors(hub, door), transport) as road:
        async with connected(road("ann/1")) as service, trio.open_nursery() as nursery:
            errors: list[AtomaError] = []

            async def write() -> None:
                errors.append(await refusal(lambda: service.write(request)))

            nursery.start_soon(write)
            await decided.wait()
            await hub.end("ann")
        assert [code_of(error) for error in errors] == ["SESSION_ENDED"]
        async with connected(road("ann/1")) as service:
            again = await service.write(request)
            assert (again.status, again.items[0].changed, again.items[0].version) == ("confirmed", True, 1)
            assert len((await service.query(EVERYTHING)).rows) == 1


@pytest.mark.virtual_time
async def test_a_token_that_is_being_looked_at_does_not_slip_through() -> None:
    """The verifier found it good; before it says so, the token is revoked and its sessions are ended."""
    issuer, looked, go_on = Issuer(), trio.Event(), trio.Event()

    async def slow() -> None:
        looked.set()
        await go_on.wait()

    issuer.before_answer = slow
    async with a_hub(issuer) as hub, open_road(hub, "memory") as road, trio.open_nursery() as nursery:
        errors: list[AtomaError] = []

        async def connect() -> None:
            errors.append(await refusal(road("ann/1").connect().__aenter__))

        nursery.start_soon(connect)
        await looked.wait()
        issuer.revoked.add("ann/1")
        assert await hub.end("ann") == 0
        go_on.set()
        await until(lambda: errors)
        assert code_of(errors[0]) == "CONNECT_FAILED", "which is tried again"
        assert "were ended" in str(errors[0])
        assert hub.sessions() == ()
        issuer.before_answer = trio.lowlevel.checkpoint
        assert code_of(await refusal(road("ann/1").connect().__aenter__)) == "UNAUTHENTICATED"


@pytest.mark.virtual_time
async def test_a_client_that_takes_nothing_does_not_hold_the_operator_up() -> None:
    async with a_hub(Issuer()) as hub:
        network = MemoryNetwork()
        async with network.listen(hub), connected(MemoryTransport(network, token="ann/1")) as ann:
            begun = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refusal, lambda: listen(ann, begun))
                await begun.wait()
                network.partition(silent=True)
                with trio.fail_after(3):
                    assert await hub.end("ann") == 1
                network.heal()
                network.disconnect()
        await until(lambda: hub.sessions() == ())


@pytest.mark.parametrize("wrong", ["", None, 7, b"ann"])
async def test_nobody_is_ended_by_mistake(wrong: Any) -> None:
    async with a_hub(Issuer()) as hub:
        with pytest.raises(ConfigurationError, match="subject"):
            await hub.end(wrong)
        with pytest.raises(ConfigurationError, match="reason"):
            await hub.end("ann", reason=wrong)


# ---------------------------------------------------------------------- a device


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_device_is_told_at_once_and_goes_on_with_a_fresh_token(transport: str, tmp_path: Path) -> None:
    issuer, token = Issuer(), "ann/1"

    async def ask() -> str:
        return token

    async with a_hub(issuer) as hub, open_road(hub, transport) as road:
        plugins: list[Plugin] = [
            LocalExecution(SQLiteEngine(tmp_path / "a.db")),
            Remote(road(ask)),
            Sync([CARDS], (BOARD,)),
        ]
        async with open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client:
            cards, sync = client.store(CARDS), client.sync
            await cards.insert(Card(id="1", title="before", board=BOARD))
            await until(lambda: sync.status.state == "online" and not sync.status.pending)
            issuer.revoked.add("ann/1")
            await hub.end("ann")
            # a page that was under way says that the session has ended; the next opening says why
            await until(lambda: sync.status.error is not None and sync.status.error.code == "UNAUTHENTICATED")
            assert (sync.status.state, sync.status.helps) == ("stalled", "a new token")
            await cards.insert(Card(id="2", title="meanwhile", board=BOARD))
            assert hub.sessions() == ()
            token = "ann/2"
            sync.poke()
            await until(lambda: sync.status.state == "online" and not sync.status.pending)
            assert subjects(hub) == ["ann"]
        rows = (await hub.service(Principal("ann")).query(EVERYTHING)).rows
        assert sorted(row.id for row in rows) == ["1", "2"]


# ---------------------------------------------------------------------- asking the verifier again


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_revoked_token_does_not_work_for_long(transport: str) -> None:
    issuer, begun = Issuer(), trio.Event()
    async with a_hub(issuer, verify_again_s=0.2) as hub, open_road(hub, transport) as road:
        async with connected(road("ann/1")) as ann, connected(road("bob/1")) as bob, trio.open_nursery() as nursery:
            errors: list[AtomaError] = []

            async def told() -> None:
                errors.append(await refusal(lambda: listen(ann, begun)))

            nursery.start_soon(told)
            nursery.start_soon(listen, bob, trio.Event())
            await begun.wait()
            await until(lambda: issuer.asked.count("bob/1") > 3)
            assert errors == [], "a token that is good goes on"
            issuer.revoked.add("ann/1")
            await until(lambda: errors)
            assert code_of(errors[0]) == "SESSION_ENDED"
            assert "not known here" in str(errors[0])
            await until(lambda: subjects(hub) == ["bob"])
            nursery.cancel_scope.cancel()


@pytest.mark.virtual_time
async def test_the_verifier_is_asked_once_in_each_period() -> None:
    issuer = Issuer()
    hub_of_issuer = a_hub(issuer, verify_again_s=600.0, environment=seeded_environment(1))
    async with hub_of_issuer as hub, open_road(hub, "memory") as road, connected(road("ann/1")):
        (first,) = hub.sessions()
        await trio.sleep(6100)
        (later,) = hub.sessions()
        assert 9 <= issuer.asked.count("ann/1") - 1 <= 10
        assert later.since_ms == first.since_ms
        assert later.verified_ms > first.verified_ms


@pytest.mark.virtual_time
@pytest.mark.parametrize("how", ["hangs", "raises", "says nonsense", "is interrupted"])
async def test_a_verifier_that_fails_is_given_time_and_ends_nobody_else(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = Issuer()
    away = False

    async def answer() -> None:
        if not away:
            return
        if how == "hangs":
            await trio.sleep_forever()
        elif how == "raises":
            raise OSError("the identity provider is away")
        elif how == "is interrupted":
            raise SystemExit
        raise TypeError

    issuer.before_answer = answer
    async with a_hub(issuer, verify_again_s=600.0) as hub, open_road(hub, "memory") as road:
        async with connected(road("ann/1")) as ann:
            away = True
            await trio.sleep(900)
            await ann.query(EVERYTHING)  # for a while, it goes on
            away = False
            await trio.sleep(1500)
            await ann.query(EVERYTHING)
            away = True
            begun = trio.Event()
            async with trio.open_nursery() as nursery:
                errors: list[AtomaError] = []

                async def told() -> None:
                    with pytest.raises(AtomaError) as refused:
                        await listen(ann, begun)
                    errors.append(refused.value)

                nursery.start_soon(told)
                since = trio.current_time()
                await until_late(lambda: errors)
                assert 600 < trio.current_time() - since <= 1300
            assert code_of(errors[0]) == "SESSION_ENDED"
            assert "could not be verified" in str(errors[0])
            assert hub.sessions() == ()
        away = False
        async with connected(road("ann/1")) as ann:
            await ann.query(EVERYTHING)
    assert "ann/1" not in caplog.text


async def until_late(true: Callable[[], object]) -> None:
    with trio.fail_after(10_000):
        while not true():
            await trio.sleep(1)


@pytest.mark.virtual_time
@pytest.mark.parametrize("what", ["claims", "subject", "expiry"])
async def test_what_the_verifier_says_anew_counts(what: str) -> None:
    class Moody(Issuer):
        async def verify(self, token: str, peer: Peer) -> Principal:
            principal = await super().verify(token, peer)
            return Principal("eve") if changed and what == "subject" else principal

    issuer, changed = Moody(), False
    async with a_hub(issuer, verify_again_s=600.0) as hub, open_road(hub, "memory") as road:
        async with connected(road("ann/1")) as ann, trio.open_nursery() as nursery:
            errors: list[AtomaError] = []
            begun = trio.Event()

            async def told() -> None:
                with pytest.raises(AtomaError) as refused:
                    await listen(ann, begun)
                errors.append(refused.value)

            nursery.start_soon(told)
            await begun.wait()
            changed = True
            if what == "claims":
                issuer.claims["team"] = "red"
            elif what == "expiry":
                issuer.expires_in_s = 30.0
            await until_late(lambda: errors)
        assert code_of(errors[0]) == ("AUTH_EXPIRED" if what == "expiry" else "SESSION_ENDED")
        assert ("the rights of this token have changed" in str(errors[0])) == (what != "expiry")
        await trio.sleep(10)
        assert hub.sessions() == ()


@pytest.mark.parametrize("wrong", [0, -1.0, float("nan"), float("inf"), "600", True])
async def test_a_period_is_a_number_of_seconds(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="verify_again_s"):
        async with a_hub(Issuer(), verify_again_s=wrong):
            pass


def test_no_client_reaches_it() -> None:
    """What a client may call is the service, and there is nothing about sessions in it."""
    from atoma.hub.service import HubService
    from atoma_transports.adapters import METHODS

    named = {name for name in dir(HubService) if not name.startswith("_")}
    assert named == METHODS.keys()
    assert not {"end", "sessions", "registry"} & named
    assert cast("Any", RemoteError("x", remote_code="SESSION_ENDED")).remote_retryable
