"""The transport and the hub's own HTTP handler, over real sockets: cancelling, deadlines, batches, budgets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from atoma.contracts.execution import ExecutionMeta, OperationContext, QueryRequest, QueryResult
from atoma.contracts.sync import Cursor, PullReply, PullRequest
from atoma.errors import AuthenticationError, ChannelBroken, RemoteError
from atoma.ports import Channel, Peer, Principal
from atoma.testing.queries import rows_of
from atoma_transports.adapters import ServiceProxy
from atoma_transports.calls import ChannelLimits
from atoma_transports.http import BatchRules, HttpTransport, LaneRules
from atoma_transports.serving import open_server
from tests.unit.transports.kit import Unasked

PATIENCE_S = 20


@dataclass
class Hub(Unasked):
    """Answers queries of some stores at once, of others never; pulls give the scope back."""

    active: list[str] = field(default_factory=list)
    cancelled: list[tuple[str, float]] = field(default_factory=list)
    budgets: list[float] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    good: str = ""
    lifetime_s: float | None = None

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        self.tokens.append(token)
        if self.good and token != self.good:
            raise AuthenticationError("the token is not known here")
        return Principal("alice", expires_in_s=self.lifetime_s)

    def service(self, principal: Principal) -> Hub:
        return self

    async def query(self, request: QueryRequest) -> QueryResult:
        self.active.append(request.store)
        self.budgets.append(trio.current_effective_deadline() - trio.current_time())
        try:
            if request.store.startswith("never"):
                await trio.sleep_forever()
            await trio.sleep(0.05 if request.store.startswith("slow") else 0)
            self.done.append(request.store)
            return QueryResult(meta=ExecutionMeta(cursor=request.store))
        except trio.Cancelled:
            self.cancelled.append((request.store, trio.current_time()))
            raise
        finally:
            self.active.remove(request.store)

    async def pull(self, request: PullRequest) -> PullReply:
        if request.scope == "never":
            await trio.sleep_forever()
        return PullReply(request.scope, request.cursor, request.cursor, head=len(request.scope))


def query(store: str) -> QueryRequest:
    return QueryRequest(rows_of(store), OperationContext("trace"))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.002)


@asynccontextmanager
async def opened(**options: Any) -> AsyncGenerator[tuple[Hub, Channel]]:
    hub = Hub()
    async with open_server(hub, "127.0.0.1:0") as address:
        async with HttpTransport(f"http://{address}", **options).connect() as channel:
            yield hub, channel


async def test_cancelling_a_call_that_is_alone_cancels_its_handler_promptly() -> None:
    async with opened() as (hub, channel):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ServiceProxy(channel).query, query("never"))
            await until(lambda: hub.active == ["never"])
            began = trio.current_time()
            nursery.cancel_scope.cancel()
        await until(lambda: len(hub.cancelled) == 1)
        assert hub.cancelled[0][1] - began < 5  # typically a few milliseconds; a busy machine is slow
        assert (await ServiceProxy(channel).query(query("fast"))).meta.cursor == "fast"


async def test_cancelling_one_call_of_a_batch_cancels_its_handler_and_no_other() -> None:
    async with opened() as (hub, channel):
        scopes = {name: trio.CancelScope() for name in ("never-1", "never-2", "never-3", "never-4")}

        async def ask(name: str) -> None:
            with scopes[name]:
                await ServiceProxy(channel).query(query(name))

        async with trio.open_nursery() as nursery:
            for name in scopes:
                nursery.start_soon(ask, name)
            await until(lambda: len(hub.active) == 4)
            scopes["never-2"].cancel()
            await until(lambda: [name for name, _ in hub.cancelled] == ["never-2"])
            await trio.sleep(0.05)
            assert sorted(hub.active) == ["never-1", "never-3", "never-4"]
            scopes["never-1"].cancel()
            scopes["never-3"].cancel()
            await until(lambda: len(hub.cancelled) == 3)
            assert hub.active == ["never-4"]
            scopes["never-4"].cancel()  # the last one: the whole request is given up
            await until(lambda: len(hub.cancelled) == 4)


async def test_deadlines_of_calls_in_one_batch_are_their_own() -> None:
    async with opened() as (hub, channel):
        late: list[float] = []

        async def ask(name: str, seconds: float) -> None:
            with trio.move_on_after(seconds) as scope:
                await ServiceProxy(channel).query(query(name))
            if scope.cancelled_caught:
                late.append(seconds)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "never", 0.3)
            nursery.start_soon(ask, "never-2", 0.6)
            nursery.start_soon(ask, "slow", PATIENCE_S)
        assert late == [0.3, 0.6]
        assert hub.done == ["slow"]
        await until(lambda: not hub.active)
        assert sorted(budget < PATIENCE_S / 2 for budget in hub.budgets) == [False, True, True]


async def test_a_slow_page_does_not_stand_before_a_query() -> None:
    rules = BatchRules(sync=LaneRules(requests=1))
    async with opened(batching=rules) as (_, channel):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ServiceProxy(channel).pull, PullRequest("never", Cursor(), b"c"))
            await trio.sleep(0.05)
            nursery.start_soon(ServiceProxy(channel).pull, PullRequest("behind it", Cursor(), b"c"))
            with trio.fail_after(PATIENCE_S):
                assert (await ServiceProxy(channel).query(query("fast"))).meta.cursor == "fast"
            nursery.cancel_scope.cancel()


async def test_many_calls_at_once_come_back_to_their_callers() -> None:
    async with opened() as (_, channel):
        heads: dict[str, int] = {}

        async def pull(scope: str) -> None:
            heads[scope] = (await ServiceProxy(channel).pull(PullRequest(scope, Cursor(), b"c"))).head

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(pull, "s" * (number + 1))
        assert heads == {"s" * (number + 1): number + 1 for number in range(200)}


async def test_closing_in_the_middle_fails_calls_and_stops_handlers() -> None:
    hub = Hub()
    async with open_server(hub, "127.0.0.1:0") as address, trio.open_nursery() as nursery:
        errors: list[ChannelBroken] = []
        async with HttpTransport(f"http://{address}").connect() as channel:

            async def ask(name: str) -> None:
                with pytest.raises(ChannelBroken) as broken:
                    await ServiceProxy(channel).query(query(name))
                errors.append(broken.value)

            for number in range(5):
                nursery.start_soon(ask, f"never-{number}")
            await until(lambda: len(hub.active) == 5)
        await until(lambda: not hub.active)
        assert [error.maybe_sent for error in errors] == [True] * 5


async def test_a_mute_hub_with_a_deadline_ends_in_time() -> None:
    async with opened(limits=ChannelLimits(ping_s=60)) as (hub, channel):
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.2):
            await ServiceProxy(channel).query(query("never"))
        await until(lambda: not hub.active)


async def test_a_token_that_expires_is_asked_for_again() -> None:
    hub = Hub(good="one", lifetime_s=0.05)

    async def token() -> str:
        return hub.good

    async with open_server(hub, "127.0.0.1:0") as address:
        async with HttpTransport(f"http://{address}", token=token).connect() as channel:
            await ServiceProxy(channel).query(query("fast"))
            hub.good = "two"
            await trio.sleep(0.1)
            assert (await ServiceProxy(channel).query(query("fast"))).meta.cursor == "fast"
            assert hub.tokens[0] == "one"
            assert hub.tokens[-1] == "two"
        with pytest.raises(AuthenticationError, match="not known"):
            async with HttpTransport(f"http://{address}", token="one").connect():
                raise AssertionError("came in")


async def test_a_hub_that_stops_refuses_new_calls_with_a_retryable_error() -> None:
    hub = Hub()
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[str]) -> None:
            async with open_server(hub, "127.0.0.1:0") as address:
                task_status.started(address)
                await stop.wait()

        stop = trio.Event()
        address = await nursery.start(serve)
        async with HttpTransport(f"http://{address}").connect() as channel:
            await ServiceProxy(channel).query(query("fast"))
            stop.set()
            await trio.sleep(0.05)
            with pytest.raises((ChannelBroken, RemoteError)) as refused:
                await ServiceProxy(channel).query(query("fast"))
            error = refused.value
            if isinstance(error, RemoteError):
                assert (error.remote_code, error.remote_retryable) == ("UNAVAILABLE", True)
            else:
                assert isinstance(error, ChannelBroken)
                assert error.maybe_sent is False
