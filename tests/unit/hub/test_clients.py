"""How many clients of a principal a hub knows, and remembers to have forgotten; and how those that come back are told."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from atoma.contracts.mutations import Op
from atoma.errors import RemoteError
from atoma.hub import Hub
from atoma.hub.pushing import DAY_MS
from atoma.ports.environment import Environment
from atoma_stores.sql.hub import clients as bounds
from atoma_stores.sql.hub.clients import ClientCount, ForgettableClient, Forgotten
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import Client, card, hub_on


def test_the_bounds() -> None:
    assert (bounds.CLIENTS_MAX, bounds.FORGOTTEN_MAX) == (1_000, 100_000)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that knows three clients of a principal, and remembers two that it has forgotten."""
    monkeypatch.setattr(bounds, "CLIENTS_MAX", 3)
    monkeypatch.setattr(bounds, "FORGOTTEN_MAX", 2)


async def pushed(hub: Hub, name: str, user: str = "local") -> Client:
    """A client that has pushed once."""
    client = Client.of(hub, name, user)
    await client.do(Op("create", "cards", f"{user}-{name}", card(name)))
    return client


async def code_of(client: Client) -> str:
    """What the next push of ``client`` is answered with."""
    mutation = client.write(Op("create", "cards", f"{client.client_id!r}-{len(client.mutations)}", card("more")))
    try:
        reply = await client.push(mutation.mid)
    except RemoteError as error:
        client.mutations.pop()
        client.digests.pop()
        return error.remote_code
    return reply.outcomes[0].status


def count(home: Home, table: str) -> int:
    ((found,),) = home.ask(f"SELECT count(*) FROM {{{table}}}")
    assert isinstance(found, int)
    return found


async def test_below_the_bound_nobody_is_forgotten(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "CLIENTS_MAX", 6)
    async with hub_on(home.store()) as hub:
        clients = [await pushed(hub, name) for name in "abcde"]
        assert [(await client.open()).known for client in clients] == [True] * 5


@pytest.mark.usefixtures("few")
async def test_of_too_many_the_one_seen_least_recently_is_forgotten_and_told_so(home: Home) -> None:
    times = itertools.count(1_000_000_000_000, 1_000)  # on a fast machine all of it happens within one millisecond
    async with hub_on(home.store(), environment=replace(Environment(), wall_ms=lambda: next(times))) as hub:
        other = await pushed(hub, "other", "eve")
        a, b, c = [await pushed(hub, name) for name in "abc"]
        assert await code_of(a) == "applied"  # so that b has been away for longest
        d = await pushed(hub, "d")
        assert count(home, "client") == 4
        assert [(await client.open()).known for client in (a, b, c, d, other)] == [True, False, True, True, True]
        assert await code_of(b) == "CLIENT_EXPIRED"
        assert [await code_of(client) for client in (a, c, d, other)] == ["applied"] * 4
        assert "local-b" in await a.query(), "what it wrote stays"


@pytest.mark.usefixtures("few")
async def test_what_a_client_has_not_heard_goes_with_it_and_outcomes_of_others_stay(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        clients = [await pushed(hub, name) for name in "abcd"]
        assert count(home, "outcome") == 3
        again = await clients[1].push(1)
        assert (again.outcomes[0].status, again.outcomes[0].duplicate) == ("applied", True)


@pytest.mark.usefixtures("few")
async def test_beyond_what_is_remembered_an_unknown_client_counts_as_forgotten(home: Home) -> None:
    store = home.store()
    async with hub_on(store) as hub:
        gone = [await pushed(hub, f"{number}") for number in range(6)][:3]  # three are known, three forgotten
        assert count(home, "expired") == 2, "of the third nothing is kept"
        assert not any([(await client.open()).known for client in gone])
        assert [await code_of(client) for client in gone] == ["CLIENT_EXPIRED"] * 3
        fresh = Client.of(hub, "fresh")
        assert not (await fresh.open()).known, "it may be one of them"
        assert await code_of(fresh) == "CLIENT_EXPIRED"
        assert (await Client.of(hub, "eve's", "eve").open()).known, "of others none was forgotten"
        reborn = Client.of(hub, "reborn")
        reborn.incarnation = 2
        assert (await reborn.open()).known
        assert await code_of(reborn) == "applied"
        liar = Client.of(hub, "reborn and forgotten")
        liar.incarnation = 2
        assert not (await liar.open(confirmed=7)).known, "it has heard something under this id"


async def test_what_is_kept_of_a_forgotten_client_has_sixteen_bytes(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        await pushed(hub, "gone")
        assert (await hub.compact(client_days=-1, force=True)).clients == 1
    ((stone,),) = home.ask("SELECT client FROM {expired}")
    assert isinstance(stone, bytes)
    assert len(stone) == 16
    assert home.ask("SELECT principal, n FROM {expired_count}") == [("local", 1)]


@pytest.mark.usefixtures("few")
def test_clients_of_a_group_that_is_being_decided_stay() -> None:
    """A client that is forgotten while more is to be written about it would be known again, without its outcomes."""
    crowd = (ForgettableClient(1, b"a"), ForgettableClient(2, b"b", (b"name",)), ForgettableClient(3, b"c"))
    room, gone = ClientCount(3, 0, crowd).with_one_more("local", {b"a", b"new"})
    assert gone == [Forgotten(crowd[1], "local", (b"name", b"b"))]
    assert room == ClientCount(3, 2, (crowd[0], crowd[2])), "its other name counts as well"


@pytest.mark.usefixtures("few")
def test_nobody_is_forgotten_while_there_is_room() -> None:
    """Who was seen when is known for a whole group before it is known how many of it are new."""
    crowd = (ForgettableClient(1, b"a"), ForgettableClient(2, b"b"))
    assert ClientCount(2, 0, crowd).with_one_more("local", ()) == (ClientCount(3, 0, crowd), [])


async def test_that_a_client_was_there_is_noted_once_a_day_and_first_thing_after_a_restore(home: Home) -> None:
    """Opening a session writes nothing otherwise; what is noted decides who is forgotten, and who has not come back."""
    now = [1_700_000_000_000]
    environment = replace(Environment(), wall_ms=lambda: now[0])
    async with hub_on(home.store(), environment=environment) as hub:
        client = await pushed(hub, "a")
        began = now[0]

        async def seen(after_ms: int) -> int:
            """Open a session so much later; what is noted then, in milliseconds since the push."""
            now[0] += after_ms
            await client.open()
            ((found,),) = home.ask("SELECT seen_ms FROM {client}")
            assert isinstance(found, int)
            return found - began

        assert await seen(DAY_MS - 1) == 0
        assert await seen(1) == DAY_MS
        assert await seen(1_000) == DAY_MS
        await hub.new_epoch()
        assert await seen(0) == DAY_MS + 1_000
        assert await seen(10) == DAY_MS + 1_000
