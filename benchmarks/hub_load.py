"""Load for a hub, by the calls that a connection would make: pushes as fast as they are answered, or so many in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from atoma.contracts.mutations import Op
from atoma.contracts.sync import NotifyRequest
from atoma.hub import Hub
from atoma.ports import Principal
from tests.unit.hub.kit import Client, card

GROUPS_MIN, LONGEST_S = 30, 15.0


@dataclass(frozen=True, slots=True)
class Load:
    """Pushes of ``size`` mutations by so many clients, spread over scopes.

    Attributes:
        name: Whose load it is; clients and rows of two names are different ones.
        clients: How many push at the same time.
        size: Mutations in a push.
        scopes: How many scopes they push to.
        seconds: How long it is counted.
        rate: Mutations in a second, all clients together; 0 for as many as go.
        warm_s: How long it goes before it is counted: every client is known then, and statements are prepared.
    """

    name: str
    clients: int
    size: int
    scopes: int
    seconds: float
    rate: float = 0.0
    warm_s: float = 0.7


@dataclass(slots=True)
class Pushed:
    """What became of a load: mutations that were accepted, in so many seconds, for so much CPU of this process, in so many groups.

    ``answered`` are all that were decided from the beginning, those before it counted included.
    """

    mutations: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    groups: int = 0
    answered: int = 0


async def push(
    hub: Hub,
    load: Load,
    groups: Callable[[], int] | None = None,
    told: list[tuple[str, int, float]] | None = None,
) -> Pushed:
    """Carry out ``load``.

    Args:
        hub: Who decides it.
        load: What it is.
        groups: How many the hub's database has written. It is counted until there were enough of them: a group is counted whole
            where its answers come, and may have cost before.
        told: Gets the scope, its head and the time of each answer, where that is wanted.
    """
    done = Pushed()
    counting = False

    async def keep_pushing(number: int) -> None:
        client, scope = Client.of(hub, f"{load.name}-{number}", load.name), f"s{number % load.scopes}"
        due, every = time.perf_counter(), load.clients * load.size / load.rate if load.rate else 0.0
        while True:
            if every:
                due = max(due + every, time.perf_counter() - 1.0)
                await trio.sleep(max(0.0, due - time.perf_counter()))
            first = len(client.mutations) + 1
            for at in range(first, first + load.size):
                client.write(Op("create", "cards", f"{load.name}-{number}-{at}", card("t")), scope=scope)
            reply = await client.push(first)
            assert reply.error is None, reply.error
            assert len(reply.outcomes) == load.size
            assert {outcome.status for outcome in reply.outcomes} == {"applied"}
            done.answered += load.size
            if counting:
                done.mutations += load.size
                if told is not None:
                    told.append((scope, max(outcome.seq for outcome in reply.outcomes), time.monotonic()))

    async with trio.open_nursery() as nursery:
        for number in range(load.clients):
            nursery.start_soon(keep_pushing, number)
        await trio.sleep(load.warm_s)
        counting, began, before = True, time.perf_counter(), time.process_time()
        written = 0 if groups is None else groups()
        await trio.sleep(load.seconds)
        while groups is not None and groups() - written < GROUPS_MIN and time.perf_counter() - began < LONGEST_S:
            await trio.sleep(0.1)
        done.seconds, done.cpu_s = time.perf_counter() - began, time.process_time() - before
        done.groups = 0 if groups is None else groups() - written
        nursery.cancel_scope.cancel()
    return done


async def listen(hub: Hub, scopes: int, heard: list[tuple[str, int, float]]) -> None:
    """Note the scope, the head and the time of every hint until cancelled."""
    request = NotifyRequest(tuple(f"s{number}" for number in range(scopes)))
    async with hub.service(Principal("listener")).notify(request) as hints:
        async for hint in hints:
            heard.append((hint.scope, hint.head, time.monotonic()))
