"""The hub's own states are an enumeration: each is told with a code, callers with what they need of it, and each has a way out."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from atoma.codes import CODES, HELP
from atoma.contracts.mutations import Op
from atoma.contracts.values import ErrorInfo
from atoma.errors import ClosedError, ForeignLog, Overloaded, RemoteError, StoreBusy, StoreCorrupt, StoreError
from atoma.hub.failures import TROUBLES
from atoma.inspector import Operations
from atoma.sync.conditions import condition_code, what_helps
from atoma_stores.sqlite import SQLiteHubStore
from atoma_stores.sqlite.faults import fault_vfs
from atoma_transports.http import HttpHandler
from tests.architecture.test_codes import error_classes
from tests.unit.hub.kit import Client, card, hub_on

Walk = Callable[[Path], Awaitable[None]]
TESTS = Path(__file__).parents[2]


async def refused(client: Client, code: str) -> None:
    """What was written last is refused for the state of the hub, in words that say nothing of its files."""
    with pytest.raises(RemoteError) as caught:
        await client.push(len(client.mutations))
    trouble, error = TROUBLES[code], caught.value
    told = ErrorInfo(error.remote_code, str(error), error.remote_retryable, info=error.info)
    named = trouble.named and CODES[code].waits == "stalled"  # of one that is closing there is nothing to do
    assert error.remote_code == trouble.told and error.retry_after_s > 0
    assert condition_code(told) == (code if named else trouble.told) and what_helps(told)
    assert ".db" not in str(error)


def write(client: Client, id: str) -> None:
    client.write(Op("create", "cards", id, card("t")))


async def taken(client: Client) -> None:
    reply = await client.push(len(client.mutations))
    assert [outcome.status for outcome in reply.outcomes] == ["applied"]


async def disk_full(folder: Path) -> None:
    """It is open all the while, and goes on by itself."""
    with fault_vfs("a-full-disk") as plan:
        async with hub_on(SQLiteHubStore(folder / "hub.db", vfs="a-full-disk")) as hub:
            client = Client.of(hub, "a")
            plan.fail("write", "full")
            write(client, "1")
            await refused(client, "DISK_FULL")
            plan.heal()
            await taken(client)


async def disk_fails(folder: Path) -> None:
    """Nobody knows what a failed fsync has left: it answers nothing until it is opened again."""
    with fault_vfs("a-failing-disk") as plan:
        async with hub_on(SQLiteHubStore(folder / "hub.db", vfs="a-failing-disk")) as hub:
            client = Client.of(hub, "a")
            plan.fail("sync", "io", once=True)
            write(client, "1")
            await refused(client, "STORE")
            await refused(client, "STORE")
    async with hub_on(folder / "hub.db") as hub:
        await taken(client.on(hub))


async def another_hub(folder: Path) -> None:
    """It does not open while another one has the file."""
    async with hub_on(folder / "hub.db"):
        with pytest.raises(StoreBusy):
            async with hub_on(folder / "hub.db"):
                raise AssertionError("two hubs on one file")
    async with hub_on(folder / "hub.db") as hub:
        write(client := Client.of(hub, "a"), "1")
        await taken(client)


async def closed(folder: Path) -> None:
    """It is being stopped; the next one takes the same request."""
    async with hub_on(folder / "hub.db") as hub:
        client = Client.of(hub, "a")
        write(client, "1")
    await refused(client, "CLOSED")
    async with hub_on(folder / "hub.db") as hub:
        await taken(client.on(hub))


async def damaged(folder: Path) -> None:
    """It does not open on what is no hub's file, and changes nothing of it; a copy in its place helps."""
    async with hub_on(folder / "hub.db"):
        pass
    whole = (folder / "hub.db").read_bytes()
    (folder / "hub.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(StoreCorrupt):
        async with hub_on(folder / "hub.db"):
            raise AssertionError("it is damaged")
    assert (folder / "hub.db").read_bytes() == b"no database" * 1_000
    (folder / "hub.db").write_bytes(whole)
    async with hub_on(folder / "hub.db") as hub:
        write(client := Client.of(hub, "a"), "1")
        await taken(client)


WALKS: dict[str, list[Walk]] = {
    "DISK_FULL": [disk_full],
    "STORE": [disk_fails],
    "BUSY": [another_hub],  # a file that another program holds: tests/scenarios/sync/test_ways_out.py
    "CLOSED": [closed],
    "CORRUPT": [damaged],
}
ELSEWHERE = {
    "WRONG_KEY": ("scenarios/encryption/test_encrypted_files.py", "WRONG_KEY"),
    "MIGRATION": ("unit/hub/test_epochs.py", "MigrationError"),
    "OVERLOADED": ("unit/hub/test_reading.py", "OVERLOADED"),
}
"""States that keep a hub from opening, or that a crowd makes; where each is walked, and by which word."""


@pytest.mark.parametrize(
    ("code", "walk"), [(code, walk) for code, walks in WALKS.items() for walk in walks], ids=lambda each: getattr(each, "__name__", each)
)  # fmt: skip
async def test_every_state_of_a_hub_is_told_and_has_a_way_out(code: str, walk: Walk, tmp_path: Path) -> None:
    assert code in TROUBLES
    await walk(tmp_path)


def test_no_state_is_left_out() -> None:
    """Whatever a store can fail with is one, and so is a crowd; a log that is another file's only ends a device, a hub sets it aside."""
    found = {kind.code for kind in error_classes(StoreError)} - {ForeignLog.code} | {Overloaded.code}
    assert found == TROUBLES.keys() == WALKS.keys() | ELSEWHERE.keys()
    for file, word in ELSEWHERE.values():
        text = (TESTS / file).read_text(encoding="utf-8")
        assert any(
            word in ast.unparse(each) for each in ast.parse(text).body if getattr(each, "name", "").startswith("test_")
        )
    page = (TESTS.parent / "docs/how-to/run-hub.md").read_text(encoding="utf-8")
    rows = [
        f"| `{code}` | `{each.told}` | {CODES[code].means} | {HELP[CODES[code].help]} |"
        for code, each in TROUBLES.items()
    ]
    assert [row for row in rows if row not in page] == []


async def test_readiness_names_the_state(tmp_path: Path) -> None:
    operations = Operations(HttpHandler())
    assert await operations.trouble() == ClosedError.code
    async with hub_on(tmp_path / "hub.db") as hub:
        operations.serve(hub)
        assert await operations.trouble() == ""
    assert await operations.trouble() == ClosedError.code
