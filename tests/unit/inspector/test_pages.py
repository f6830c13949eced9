"""Who sees the inspector, and what it costs that many look."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from atoma import AllowLoopback, open_hub
from atoma import hub as hubs
from atoma.inspector import add_inspector
from atoma.inspector.pages import Guard
from atoma.inspector.watch import SharedLook
from atoma.ports import Peer
from atoma_stores.sqlite import SQLiteHubStore
from atoma_transports.calls import ChannelLimits
from atoma_transports.http import HttpRequest
from tests.unit.inspector.test_inspection import NOTES, SCHEMA, Note, opened
from tests.unit.transports.http.kit import Hub, Site

PATHS = (
    "/inspector",
    "/api/inspector",
    "/api/inspector/rows?client=one&store=notes",
    "/api/inspector/one/events",
    "/api/inspector/log?client=one",
)
HERE, THERE = Peer("127.0.0.1", True, "http"), Peer("192.0.2.1", False, "http")


@asynccontextmanager
async def inspected(folder: Path, peer: Peer, guard: Guard | None = None) -> AsyncGenerator[Site]:
    async with opened(folder / "notes.db") as (client, target), trio.open_nursery() as nursery:
        await client.store(NOTES).insert(Note(text="a secret of the rows"))
        site = Site(nursery, Hub(), ChannelLimits(), peer=peer)
        add_inspector(site.handler, [target], guard=guard)
        with trio.fail_after(60):
            yield site
        nursery.cancel_scope.cancel()


async def seen(site: Site, path: str, **fields: str) -> tuple[int, bytes]:
    client = site.connect()
    await client.send("GET", path, **fields)  # type: ignore[arg-type]
    status, head = await client.head()
    if head.get("content-type") == "text/event-stream":
        return status, await client.read_until(b"\n\n")
    return status, await client.read(int(head["content-length"]))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("peer", "fields"),
    [(THERE, {}), (HERE, {"x_forwarded_for": "127.0.0.1"}), (HERE, {"via": "1.1 a-proxy"})],
    ids=["from elsewhere", "forwarded", "via"],
)
async def test_who_is_not_on_this_machine_sees_nothing(
    path: str, peer: Peer, fields: dict[str, str], tmp_path: Path
) -> None:
    async with inspected(tmp_path, peer) as site:
        status, body = await seen(site, path, **fields)
        assert status == 403
        assert b"secret" not in body


async def test_who_is_on_this_machine_sees_it_all(tmp_path: Path) -> None:
    async with inspected(tmp_path, HERE) as site:
        answers = [await seen(site, path) for path in PATHS]
        assert [status for status, _ in answers] == [200] * len(PATHS)
        assert b"a secret of the rows" in answers[2][1]
        assert b'"name":"notes"' in answers[3][1]
        lines = [json.loads(line) for line in answers[4][1].splitlines()]
        assert [line["kind"] for line in lines if line["kind"] == "write"] == ["write"], "each line is a JSON object"


async def test_a_guard_decides_instead(tmp_path: Path) -> None:
    async def may_look(request: HttpRequest) -> bool:
        return request.headers.get("cookie") == "session=of-an-admin"

    async with inspected(tmp_path, THERE, may_look) as site:
        for path in PATHS:
            assert (await seen(site, path))[0] == 403
            assert (await seen(site, path, cookie="session=of-an-admin"))[0] == 200
    async with inspected(tmp_path, HERE, may_look) as site:
        assert (await seen(site, PATHS[0]))[0] == 403


# ---------------------------------------------------------------------- one look for all


class Scene:
    """Something that moves, and how often it was looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.state = "calm"
        self.moved = trio.Event()
        self.shared = SharedLook(self.look, self.wait)

    async def look(self) -> str:
        self.looks += 1
        await trio.sleep(0.01)
        return self.state

    async def wait(self) -> None:
        await self.moved.wait()

    def move(self, state: str) -> None:
        self.state = state
        self.moved.set()
        self.moved = trio.Event()


async def test_every_tab_of_a_client_is_shown_the_same_look(tmp_path: Path) -> None:
    looks, tabs = 0, 20
    async with (
        opened(tmp_path / "notes.db") as (_, target),
        open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub,
        trio.open_nursery() as nursery,
    ):

        async def find_hub() -> hubs.Hub:  # once for each look
            nonlocal looks
            looks += 1
            return hub

        site = Site(nursery, Hub(), ChannelLimits(), peer=HERE)
        add_inspector(site.handler, [target], hub=find_hub)
        with trio.fail_after(60):
            for _ in range(tabs):
                assert (await seen(site, PATHS[3]))[0] == 200
        nursery.cancel_scope.cancel()
    assert 1 <= looks < tabs


@pytest.mark.virtual_time
async def test_sixty_tabs_cost_one_look_a_second() -> None:
    scene = Scene()
    taken: list[list[str]] = [[] for _ in range(60)]

    async def tab(number: int) -> None:
        async def take(text: str) -> None:
            taken[number].append(text)

        await scene.shared.read(take)

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(tab, number)
        await trio.sleep(10)
        assert 8 <= scene.looks <= 10
        assert taken == [["calm"]] * 60
        scene.move("storm")
        await trio.sleep(0.5)
        assert taken == [["calm", "storm"]] * 60
        nursery.cancel_scope.cancel()
    looks = scene.looks
    await trio.sleep(10)
    assert scene.looks == looks  # nobody looks, so nobody pays


@pytest.mark.virtual_time
async def test_when_the_one_who_looks_leaves_another_goes_on() -> None:
    scene = Scene()
    taken: list[str] = []

    async def leave_soon(text: str) -> None:
        await trio.sleep_forever()

    async def take(text: str) -> None:
        taken.append(text)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as first:
            nursery.start_soon(scene.shared.read, leave_soon)
            with trio.move_on_after(0.5):
                await scene.shared.read(take)
            first.cancel()
        scene.move("while nobody read")
        nursery.start_soon(scene.shared.read, take)
        await trio.sleep(0.005)
        for state in ("one", "two"):
            scene.move(state)
            await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert taken[0] == "calm"
    assert taken[-2:] == ["one", "two"]


@pytest.mark.virtual_time
async def test_what_the_look_raises_ends_everybody() -> None:
    class Closed(Exception):
        pass

    async def look() -> str:
        raise Closed

    shared = SharedLook(look, trio.sleep_forever)
    ended = 0

    async def tab() -> None:
        nonlocal ended

        async def take(text: str) -> None:
            raise AssertionError(text)

        with pytest.raises(Closed):
            await shared.read(take)
        ended += 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(tab)
    assert ended == 5
