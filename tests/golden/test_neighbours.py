"""Neighbouring versions: the golden commit itself, in a process of its own, against the code of today."""

from __future__ import annotations

import functools
import gzip
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

import atoma.hub.service
import atoma.sync.session
import tests.golden.kit
from atoma import Increment, Schema, StoreSpec
from atoma.contracts.sync import OpenRequest
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.golden.kit import CARDS, DRAFTS, KEPT, NOTES, SEATS, THINGS, Card, Thing, device_on, hub_on
from tests.golden.messages import ENCODINGS, dump, load, written
from tests.golden.old import FOLDER, NoHistory, check_out, command_of, environment
from tests.golden.peer import synced_or_stalled
from tests.golden.test_messages import ADDED, ADDED_METHODS, GREW, REFUSED
from tests.scenarios.sync.ways import is_told

pytestmark = pytest.mark.xdist_group("machine")

PATIENCE_S = 60
OLD_CODE = "MALFORMED"
"""The golden commit has PROTO_UNSUPPORTED in the text only."""
SYNCED = {"state": "online", "error": "", "pending": 0}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden commit's code."""
    try:
        return check_out(tmp_path_factory.mktemp("golden"))
    except NoHistory as missing:
        pytest.skip(f"{missing}; the golden bytes and files are read all the same")


@asynccontextmanager
async def old_hub(tree: Path, file: Path) -> AsyncGenerator[str]:
    """The golden commit's hub, at an address."""
    async with trio.open_nursery() as nursery:
        serve = functools.partial(
            trio.run_process,
            command_of("peer", "hub", str(file)),
            cwd=tree,
            env=environment(tree),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        process: trio.Process = await nursery.start(serve)
        assert process.stdout is not None
        assert process.stdin is not None
        yield (await process.stdout.receive_some()).decode().strip()
        await process.stdin.aclose()  # it ends, in good order
        await process.wait()


async def run_old_device(tree: Path, file: Path, url: str, card: str = "") -> dict[str, Any]:
    """What the golden commit's device says after it has written ``card``."""
    command = command_of("peer", "device", str(file), url, card)
    ended = await trio.run_process(command, cwd=tree, env=environment(tree), capture_stdout=True)
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


async def run_device(file: Path, url: str, card: str = "") -> dict[str, Any]:
    """The same of today's."""
    async with device_on(file, WebSocketTransport(url, token="a-token")) as device:
        if card:
            await device.store(CARDS).insert(Card(id=card))
        return await synced_or_stalled(device)


def assert_refused(told: dict[str, Any], card: str, code: str = "PROTO_UNSUPPORTED") -> None:
    """It is told that there is no common version, and keeps what it wrote."""
    assert told["error"].startswith(f"{code}: ")
    assert "protocol 2" in told["error"] or "protocol 1" in told["error"]
    assert (told["state"], told["pending"], told["cards"]) == ("stalled", 1, [card])


@asynccontextmanager
async def hub_of_today(file: Path) -> AsyncGenerator[str]:
    """Today's hub, at an address."""
    async with hub_on(file) as hub, open_server(hub, "127.0.0.1:0") as address:
        yield f"ws://{address}"


async def test_an_old_device_and_todays_hub_sync(tree: Path, tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE_S):
        async with hub_of_today(tmp_path / "hub.db") as url:
            await run_device(tmp_path / "today.db", url, "today's")
            told = await run_old_device(tree, tmp_path / "old.db", url, "old")
            assert told == {**SYNCED, "cards": ["old", "today's"]}
            assert (await run_device(tmp_path / "today.db", url))["cards"] == ["old", "today's"]


async def test_a_device_of_today_and_an_old_hub_sync(tree: Path, tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE_S):
        async with old_hub(tree, tmp_path / "hub.db") as url:
            await run_old_device(tree, tmp_path / "old.db", url, "old")
            told = await run_device(tmp_path / "today.db", url, "today's")
            assert told == {**SYNCED, "cards": ["old", "today's"]}
            assert (await run_old_device(tree, tmp_path / "old.db", url))["cards"] == ["old", "today's"]


async def test_presence_is_not_asked_of_a_hub_that_has_none_and_everything_else_goes_on(
    tree: Path, tmp_path: Path
) -> None:
    with trio.fail_after(PATIENCE_S):
        async with (
            old_hub(tree, tmp_path / "hub.db") as url,
            device_on(tmp_path / "today.db", WebSocketTransport(url, token="a-token")) as device,
            device.client.presence("main", {"card": "1"}) as here,
        ):
            while here.error is None:
                await trio.sleep(0.05)
            assert "UNIMPLEMENTED" in str(here.error)
            assert (here.connected, here.others) == (False, ())
            await device.store(CARDS).insert(Card(id="today"))
            assert await synced_or_stalled(device) == {**SYNCED, "cards": ["today"]}


async def test_an_increment_waits_for_a_hub_that_does_not_pass_over_it(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub of before would take the mutation and leave the counter as it is; everything else goes on."""
    counted = StoreSpec("things", Thing, merge={"count": "counter"})
    monkeypatch.setattr(tests.golden.kit, "SCHEMA", Schema(CARDS, NOTES, KEPT, SEATS, counted, DRAFTS))
    monkeypatch.setattr(tests.golden.kit, "SYNCED", (CARDS, NOTES, KEPT, SEATS, counted))
    with trio.fail_after(PATIENCE_S):
        async with (
            old_hub(tree, tmp_path / "hub.db") as url,
            device_on(tmp_path / "today.db", WebSocketTransport(url, token="a-token")) as device,
        ):
            await device.store(counted).insert(Thing(id="1", count=5))
            assert (await synced_or_stalled(device))["pending"] == 0
            for _ in range(2):
                await device.store(counted).update("1", count=Increment(1))
            told = await synced_or_stalled(device)
            assert (told["state"], told["pending"]) == ("stalled", 2)
            assert is_told(device.sync.status, "PROTO_UNSUPPORTED")
            assert "mutation 2 changes a counter" in told["error"]
            await run_old_device(tree, tmp_path / "old.db", url, "theirs")
            while not await device.rows(CARDS):  # what others write comes all the same
                device.sync.poke()
                await trio.sleep(0.05)
        async with hub_of_today(tmp_path / "hub.db") as url:
            async with device_on(tmp_path / "today.db", WebSocketTransport(url, token="a-token")) as device:
                assert await synced_or_stalled(device) == {**SYNCED, "cards": ["theirs"]}
                assert (device.sync.status.reason, device.sync.status.helps, device.sync.status.attempt) == ("", "", 0)
            async with device_on(tmp_path / "another.db", WebSocketTransport(url, token="b-token")) as device:
                await synced_or_stalled(device)
                assert (await device.rows(counted))["1"].count == 7


def unpacked(folder: Path) -> None:
    """The golden files, ready to be opened."""
    for name in ("hub", "device"):
        (folder / f"{name}.atoma").write_bytes(gzip.decompress((FOLDER / f"{name}.atoma.gz").read_bytes()))


def full_thing(file: Path) -> tuple[object, ...]:
    """How a file stores the thing in which every field says something."""
    # by the library that the hub has it open with: another one in this process would drop the hub's locks
    with closing(apsw.Connection(str(file))) as database:
        found = database.execute("SELECT price, lasts, nickname FROM things WHERE id='full'").fetchone()
        assert found is not None
        return tuple(found)


async def test_an_old_device_and_todays_hub_understand_each_others_types(tree: Path, tmp_path: Path) -> None:
    unpacked(tmp_path)
    device, hub = tmp_path / "device.atoma", tmp_path / "hub.atoma"
    with trio.fail_after(PATIENCE_S):
        async with hub_of_today(hub) as url:
            told = await run_old_device(tree, device, url)
            assert (told["state"], told["error"], told["pending"]) == ("online", "", 0)
            assert full_thing(hub) == ("0.1", -86_399_999_999, 'the "one"'), "what it had written came by value"
            async with device_on(tmp_path / "today.db", WebSocketTransport(url, token="b-token")) as today:
                await synced_or_stalled(today)
                await today.store(THINGS).update("full", lasts=timedelta(hours=1), nickname='"')
                await synced_or_stalled(today)
            await run_old_device(tree, device, url)
            assert full_thing(device) == ("0.1", '"PT3600S"', '"\\""'), "in the form in which it reads them"


async def test_a_device_of_today_and_an_old_hub_understand_each_others_types(tree: Path, tmp_path: Path) -> None:
    unpacked(tmp_path)
    hub = tmp_path / "hub.atoma"
    with trio.fail_after(PATIENCE_S):
        async with old_hub(tree, hub) as url:
            async with device_on(tmp_path / "device.atoma", WebSocketTransport(url, token="a-token")) as device:
                assert await synced_or_stalled(device) == {**SYNCED, "cards": sorted(await device.rows(CARDS))}
                await device.store(THINGS).update("full", lasts=timedelta(hours=1), nickname='"')
                assert (await synced_or_stalled(device))["pending"] == 0
                assert (await device.rows(THINGS))["full"].nickname == '"'
                assert len(await device.client.inbox.entries(resolved=True)) == 5, "nothing of it was refused"
            async with device_on(tmp_path / "new.db", WebSocketTransport(url, token="a-token")) as new:
                await synced_or_stalled(new)
                thing = (await new.rows(THINGS))["full"]
    assert (thing.price, thing.lasts, thing.nickname) == (Decimal("0.1"), timedelta(hours=1), '"')
    assert full_thing(hub) == ("0.10", '"PT3600S"', '"\\""')


async def test_an_old_device_keeps_what_a_hub_of_another_version_refuses(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(PATIENCE_S):
        with monkeypatch.context() as patch:
            patch.setattr(atoma.hub.service, "PROTOCOL_OLDEST", 2)
            async with hub_of_today(tmp_path / "hub.db") as url:
                assert_refused(await run_old_device(tree, tmp_path / "old.db", url, "old"), "old", OLD_CODE)
        async with old_hub(tree, tmp_path / "another.db") as url:  # one that it can speak with
            assert await run_old_device(tree, tmp_path / "old.db", url) == {**SYNCED, "cards": ["old"]}


async def test_a_device_of_today_keeps_what_a_hub_of_another_version_refuses(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(PATIENCE_S):
        async with old_hub(tree, tmp_path / "hub.db") as url:
            with monkeypatch.context() as patch:
                newer = functools.partial(OpenRequest, proto_min=2)
                patch.setattr(atoma.sync.session, "OpenRequest", newer)
                assert_refused(await run_device(tmp_path / "today.db", url, "new"), "new")
        async with hub_of_today(tmp_path / "another.db") as url:
            assert await run_device(tmp_path / "today.db", url) == {**SYNCED, "cards": ["new"]}


def test_the_old_code_reads_what_is_written_today(tree: Path, tmp_path: Path) -> None:
    """Whatever has been added since: an old peer makes of today's bytes what it has always known.

    JSON is for other people's programs, and that commit refuses fields of it that it does not know; devices and hubs speak
    MessagePack and protobuf, also over HTTP.
    """
    today = written()
    today["json"] = {name: data for name, data in today["json"].items() if ("json", name) not in GREW}
    for encoding in ENCODINGS:  # a hub of before refuses a query of today, and is not asked one
        today[encoding] = {
            name: data
            for name, data in today[encoding].items()
            if name not in REFUSED and name.partition(",")[0] not in ADDED
        }
    today["frames"] = {
        name: data for name, data in today["frames"].items() if name.rpartition(" ")[2] not in ADDED_METHODS
    }
    (tmp_path / "today.json").write_text(dump(today), encoding="utf-8")
    command = command_of("peer", "read", str(tmp_path / "today.json"), str(tmp_path / "again.json"))
    subprocess.run(command, cwd=tree, env=environment(tree), check=True, timeout=PATIENCE_S)
    golden = load((FOLDER / "messages.json").read_text(encoding="utf-8"))
    again = load((tmp_path / "again.json").read_text(encoding="utf-8"))
    for name in [name for group, name in GREW if group == "frames"]:
        assert again["frames"].pop(name) == today["frames"].pop(name), "a frame passes its message on unread"
    assert again == {group: {name: golden[group][name] for name in again[group]} for group in again}
    assert {group: len(found) for group, found in again.items()} == {group: len(today[group]) for group in again}


def test_the_old_code_is_not_todays(tree: Path) -> None:
    find = "import atoma, atoma_stores, atoma_transports as t; print(atoma.__path__, atoma_stores.__path__, t.__path__)"
    command = [sys.executable, "-c", find]
    ended = subprocess.run(command, cwd=tree, env=environment(tree), check=True, capture_output=True, text=True)
    assert ended.stdout.count(str(tree)) == 3
