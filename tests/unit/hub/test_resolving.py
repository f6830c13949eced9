"""What became of a direct write: its answer again, or a fence that keeps every late copy out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import apsw
import msgspec
import pytest
import trio

from atoma.contracts.execution import (
    OperationContext,
    Resolution,
    ResolveRequest,
    WriteEntry,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.sync import as_image
from atoma.errors import RemoteError
from atoma.ports import Environment
from atoma.ports.service import Principal, SyncService
from atoma.schema.ids import IdSource
from atoma_stores.sqlite import SQLiteHubStore
from atoma_stores.sqlite.faults import fault_vfs
from tests.unit.hub.kit import SCOPE, Client, card, direct, hub_on

DAY_MS = 86_400_000


def insert(id: str, title: str = "t") -> WriteEntry:
    return WriteEntry("cards", "insert", id, SCOPE, as_image({**card(title), "board": SCOPE}))


def asking(key: str) -> ResolveRequest:
    return ResolveRequest(key, OperationContext("trace"))


async def resolve(service: SyncService, key: str) -> Resolution:
    return await service.resolve(asking(key))


def refusals(result: WriteResult) -> list[str]:
    return [item.error.code if item.error else "" for item in result.items]


async def alone(request: WriteRequest) -> WriteResult:
    """What ``request`` gives at a hub of its own."""
    async with hub_on(":memory:") as hub:
        return await hub.service(Principal("ann")).write(request)


def kept(path: Path) -> list[tuple[object, ...]]:
    """Principal and key of every answer and fence, by raw SQL."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found = connection.execute("SELECT principal, idem FROM _atoma_hub_idem ORDER BY principal, idem")
        return list(found)
    finally:
        connection.close()


WHOLE = as_image({**card("t"), "board": SCOPE})
MOVED_ON = WriteEntry("cards", "upsert", "1", SCOPE, {"title": "moved on"}, defaults=WHOLE)
WRITES = {
    "one": direct(insert("1"), idem="k"),
    "several": direct(*(insert(str(n)) for n in range(12)), idem="k"),
    "partly refused": direct(insert("1"), insert("1"), WriteEntry("cards", "update", "9", SCOPE), idem="k"),
    "atomic": direct(insert("1"), insert("2"), idem="k", atomic=True),
    "atomic and refused": direct(insert("1"), insert("1"), idem="k", atomic=True),
    "refused": direct(WriteEntry("cards", "delete", "9", SCOPE), idem="k"),
    "partly nothing": direct(
        WriteEntry("cards", "upsert", "1", SCOPE, WHOLE), WriteEntry("cards", "upsert", "1", SCOPE, WHOLE), idem="k"
    ),
}


@pytest.mark.parametrize("name", WRITES)
async def test_a_known_key_tells_the_answer_that_was_lost(name: str, tmp_path: Path) -> None:
    path, request = tmp_path / "hub.db", WRITES[name]
    async with hub_on(path) as hub:
        service = hub.service(Principal("ann"))
        answer = await service.write(request)
        await service.write(direct(MOVED_ON, idem="later"))
        for _ in range(2):
            found = await resolve(service, "k")
            assert found.result is not None
            assert not found.abandoned
            assert (found.idem, found.result.status, found.result.items) == ("k", answer.status, answer.items)
            assert found.meta.source == "remote"
    async with hub_on(path) as hub:
        again = await resolve(hub.service(Principal("ann")), "k")
        assert again.result is not None
        assert again.result.items == answer.items


@pytest.mark.parametrize("name", WRITES)
async def test_an_unknown_key_is_fenced_and_a_late_copy_is_refused(name: str, tmp_path: Path) -> None:
    path, request = tmp_path / "hub.db", WRITES[name]
    async with hub_on(path) as hub:
        service = hub.service(Principal("ann"))
        assert (await resolve(service, "k")).abandoned
        late = await service.write(request)
        assert (late.status, refusals(late)) == ("rejected", ["ABANDONED"] * len(request.entries))
    async with hub_on(path) as hub:  # the fence was durable before it was told
        client = Client.of(hub, "a", "ann")
        assert (await client.service.write(request)).status == "rejected"
        assert (await resolve(client.service, "k")).abandoned
        assert await client.query() == {}
        retold = msgspec.structs.replace(request, idem="fresh")
        assert (await client.service.write(retold)).status == (await alone(request)).status
    assert kept(path)[-1] == ("ann", "k")


@pytest.mark.parametrize("name", ["one", "several", "atomic"])
@pytest.mark.parametrize("order", range(4))
async def test_of_a_resolve_and_its_late_write_one_wins_and_both_tell_it(name: str, order: int, tmp_path: Path) -> None:
    path, request = tmp_path / "hub.db", WRITES[name]
    async with hub_on(path) as hub:
        client = Client.of(hub, "a", "ann")
        results: list[WriteResult] = []
        found: list[Resolution] = []

        async def write() -> None:
            results.append(await client.service.write(request))

        async def ask() -> None:
            found.append(await resolve(client.service, "k"))

        async with trio.open_nursery() as nursery:
            for place in range(8):
                nursery.start_soon(write if (place + order) % 2 and place >= order // 2 else ask)
        rows = await client.query()
        assert all(result.items == results[0].items for result in results), "every copy was told the same"
        assert len({one.abandoned for one in found}) == 1, "everybody who asked was told the same"
        if found[0].abandoned:
            assert rows == {}
            assert refusals(results[0]) == ["ABANDONED"] * len(request.entries)
        else:
            assert rows.keys() == {entry.id for entry in request.entries}
            assert [one.result.items for one in found if one.result] == [results[0].items] * len(found)
    assert ("ann", "k") in kept(path) or ("ann", "k:0") in kept(path)


async def test_a_key_belongs_to_whom_wrote(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with hub_on(path) as hub:
        ann, bob = hub.service(Principal("ann")), hub.service(Principal("bob"))
        answer = await ann.write(WRITES["one"])
        assert (await resolve(bob, "k")).abandoned  # bob has written nothing with this key
        found = await resolve(ann, "k")
        assert found.result is not None
        assert found.result.items == answer.items
        assert (await resolve(bob, "other")).abandoned
        applied = await ann.write(direct(insert("2"), idem="other"))  # bob's fence does not stand in ann's way
        assert applied.status == "confirmed"
    assert kept(path) == [("ann", "k"), ("ann", "other"), ("bob", "k"), ("bob", "other")]


async def test_a_unit_is_not_mistaken_for_one_whose_key_begins_alike() -> None:
    async with hub_on(":memory:") as hub:
        service = hub.service(Principal("ann"))
        await service.write(direct(insert("1"), insert("2"), idem="k1"))
        await service.write(direct(insert("3"), idem="k:x"))
        assert (await resolve(service, "k")).abandoned
        late = await service.write(direct(insert("4"), insert("5"), idem="k"))
        assert refusals(late) == ["ABANDONED", "ABANDONED"]
        found = await resolve(service, "k1")
        assert found.result is not None
        assert [item.id for item in found.result.items] == ["1", "2"]


@pytest.mark.parametrize("key", ["", "x" * 201, "\ud800"])
async def test_what_cannot_be_a_key_is_refused(key: str) -> None:
    async with hub_on(":memory:") as hub:
        with pytest.raises(RemoteError) as refused:
            await resolve(hub.service(Principal("ann")), key)
        assert refused.value.remote_code == "MALFORMED"


async def test_a_key_whose_answer_may_be_forgotten_is_not_called_abandoned(tmp_path: Path) -> None:
    now = [1_700_000_000_000]
    environment = Environment()
    ids = IdSource(lambda: now[0], environment.random)
    environment = replace(environment, wall_ms=lambda: now[0], ids=ids)
    path = tmp_path / "hub.db"
    async with hub_on(path, environment=environment) as hub:
        service = hub.service(Principal("ann"))
        applied, never = ids(), ids()
        await service.write(direct(insert("1"), idem=applied))
        now[0] += 20 * DAY_MS
        await hub.compact()
        assert (await resolve(service, applied)).result is not None  # kept for thirty days
        assert (await resolve(service, never)).abandoned
        now[0] += 11 * DAY_MS
        fresh = ids()
        await hub.compact()
    async with hub_on(path, environment=environment) as hub:
        service = hub.service(Principal("ann"))
        for _ in range(2):
            with pytest.raises(RemoteError) as refused:
                await resolve(service, applied)
            assert refused.value.remote_code == "KEY_EXPIRED"
        assert (await resolve(service, never)).abandoned  # its fence is eleven days old
        assert (await resolve(service, fresh)).abandoned
    assert len(kept(path)) == 2


async def test_a_key_that_does_not_tell_its_age_is_not_called_abandoned_once_answers_are_forgotten() -> None:
    now = [1_700_000_000_000]
    async with hub_on(":memory:", environment=replace(Environment(), wall_ms=lambda: now[0])) as hub:
        service = hub.service(Principal("ann"))
        await service.write(direct(insert("1"), idem="order 1"))
        assert (await resolve(service, "order 0")).abandoned  # nothing is forgotten yet
        now[0] += 31 * DAY_MS
        await hub.compact()
        for key in ("order 1", "order 2"):
            with pytest.raises(RemoteError, match="UUIDv7") as refused:
                await resolve(service, key)
            assert refused.value.remote_code == "KEY_EXPIRED"
        await service.write(direct(insert("2"), idem="order 3"))
        assert (await resolve(service, "order 3")).result is not None


async def test_a_disk_that_fails_leaves_no_fence(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with fault_vfs("resolving-faults") as plan:
        async with hub_on(SQLiteHubStore(path, vfs="resolving-faults")) as hub:
            service = hub.service(Principal("ann"))
            plan.fail("write", "full")
            with pytest.raises(RemoteError) as failed:
                await resolve(service, "k")
            assert failed.value.remote_retryable
            plan.heal()
            assert (await service.write(WRITES["one"])).status == "confirmed"
            assert (await resolve(service, "k")).result is not None


async def test_cancelled_it_may_be_asked_again() -> None:
    async with hub_on(":memory:") as hub:
        service = hub.service(Principal("ann"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await resolve(service, "k")
        assert scope.cancelled_caught
        again = await resolve(service, "k")
        assert again.abandoned
