"""What became of a direct write: its answer again, or a fence that keeps every late copy out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trio

from atoma.contracts.execution import (
    OperationContext,
    QueryRequest,
    Resolution,
    ResolveRequest,
    WriteRequest,
    WriteResult,
)
from atoma.contracts.mutations import Op
from atoma.contracts.values import as_image
from atoma.errors import RemoteError, what_helps
from atoma.hub import ClockAhead
from atoma.ports import Environment
from atoma.ports.service import Principal, SyncService
from atoma.query.plans import every_row
from atoma.schema.ids import IdSource
from atoma_stores.sqlite import SQLiteHubStore
from atoma_stores.sqlite.faults import fault_vfs
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import SCOPE, Client, card, direct, hub_on

DAY_MS = 86_400_000


def insert(id: str, title: str = "t") -> Op:
    return Op("create", "cards", id, as_image({**card(title), "board": SCOPE}), scope=SCOPE)


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


def kept(home: Home) -> list[tuple[object, ...]]:
    """Principal and key of every answer and fence, by raw SQL."""
    return home.ask("SELECT principal, idem FROM {idem} ORDER BY principal, idem")


WHOLE = as_image({**card("t"), "board": SCOPE})
MOVED_ON = Op("upsert", "cards", "1", {"title": "moved on"}, scope=SCOPE, defaults=WHOLE)
WRITES = {
    "one": direct(insert("1"), idem="k"),
    "several": direct(*(insert(str(n)) for n in range(12)), idem="k"),
    "partly refused": direct(insert("1"), insert("1"), Op("patch", "cards", "9", scope=SCOPE), idem="k"),
    "atomic": direct(insert("1"), insert("2"), idem="k", atomic=True),
    "atomic and refused": direct(insert("1"), insert("1"), idem="k", atomic=True),
    "refused": direct(Op("delete", "cards", "9", scope=SCOPE), idem="k"),
    "partly nothing": direct(
        Op("upsert", "cards", "1", WHOLE, scope=SCOPE), Op("upsert", "cards", "1", WHOLE, scope=SCOPE), idem="k"
    ),
}


@pytest.mark.parametrize("name", WRITES)
async def test_a_known_key_tells_the_answer_that_was_lost(name: str, home: Home) -> None:
    store, request = home.store(), WRITES[name]
    async with hub_on(store) as hub:
        service = hub.service(Principal("ann"))
        answer = await service.write(request)
        await service.write(direct(MOVED_ON, idem="later"))
        for _ in range(2):
            found = await resolve(service, "k")
            assert found.result is not None
            assert not found.abandoned
            assert (found.idem, found.result.status, found.result.items) == ("k", answer.status, answer.items)
            assert found.meta.source == "remote"
    async with hub_on(store) as hub:
        again = await resolve(hub.service(Principal("ann")), "k")
        assert again.result is not None
        assert again.result.items == answer.items


@pytest.mark.parametrize("name", WRITES)
async def test_an_unknown_key_is_fenced_and_a_late_copy_is_refused(name: str, home: Home) -> None:
    store, request = home.store(), WRITES[name]
    async with hub_on(store) as hub:
        service = hub.service(Principal("ann"))
        assert (await resolve(service, "k")).abandoned
        late = await service.write(request)
        assert (late.status, refusals(late)) == ("rejected", ["ABANDONED"] * len(request.entries))
    async with hub_on(store) as hub:  # the fence was durable before it was told
        client = Client.of(hub, "a", "ann")
        assert (await client.service.write(request)).status == "rejected"
        assert (await resolve(client.service, "k")).abandoned
        assert await client.query() == {}
        retold = msgspec.structs.replace(request, idem="fresh")
        assert (await client.service.write(retold)).status == (await alone(request)).status
    assert kept(home)[-1] == ("ann", "k")


@pytest.mark.parametrize("name", ["one", "several", "atomic"])
@pytest.mark.parametrize("order", range(4))
async def test_of_a_resolve_and_its_late_write_one_wins_and_both_tell_it(name: str, order: int, home: Home) -> None:
    store, request = home.store(), WRITES[name]
    async with hub_on(store) as hub:
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
    assert ("ann", "k") in kept(home) or ("ann", "k:0") in kept(home)


async def test_a_key_belongs_to_whom_wrote(home: Home) -> None:
    store = home.store()
    async with hub_on(store) as hub:
        ann, bob = hub.service(Principal("ann")), hub.service(Principal("bob"))
        answer = await ann.write(WRITES["one"])
        assert (await resolve(bob, "k")).abandoned  # bob has written nothing with this key
        found = await resolve(ann, "k")
        assert found.result is not None
        assert found.result.items == answer.items
        assert (await resolve(bob, "other")).abandoned
        applied = await ann.write(direct(insert("2"), idem="other"))  # bob's fence does not stand in ann's way
        assert applied.status == "confirmed"
    assert kept(home) == [("ann", "k"), ("ann", "other"), ("bob", "k"), ("bob", "other")]


async def test_a_unit_is_not_mistaken_for_one_whose_key_begins_alike(home: Home) -> None:
    async with hub_on(home.store()) as hub:
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
async def test_what_cannot_be_a_key_is_refused(key: str, home: Home) -> None:
    async with hub_on(home.store()) as hub:
        with pytest.raises(RemoteError) as refused:
            await resolve(hub.service(Principal("ann")), key)
        assert refused.value.remote_code == "MALFORMED"


def clocked(now: list[int]) -> tuple[Environment, IdSource]:
    """An environment with a clock to be set, and the source of its ids."""
    environment = Environment()
    ids = IdSource(lambda: now[0], environment.random)
    return replace(environment, wall_ms=lambda: now[0], ids=ids), ids


async def rows(service: SyncService) -> dict[str, str]:
    """Titles of what is there, by id."""
    found = await service.query(QueryRequest(every_row("cards"), OperationContext("check")))
    return {row.id: str(row.image["title"]) for row in found.rows}


async def test_a_key_whose_answer_may_be_forgotten_is_not_called_abandoned(home: Home) -> None:
    now = [1_700_000_000_000]
    environment, ids = clocked(now)
    store = home.store()
    async with hub_on(store, environment=environment) as hub:
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
    async with hub_on(store, environment=environment) as hub:
        service = hub.service(Principal("ann"))
        for _ in range(2):
            with pytest.raises(RemoteError) as refused:
                await resolve(service, applied)
            assert refused.value.remote_code == "KEY_EXPIRED"
        assert (await resolve(service, never)).abandoned  # its fence is eleven days old
        assert (await resolve(service, fresh)).abandoned
    assert len(kept(home)) == 2


AGELESS = {
    "one": direct(insert("1"), idem="order 1"),
    "several": direct(insert("1"), insert("2"), idem="order 1"),
    "atomic": direct(insert("1"), insert("2"), idem="order 1", atomic=True),
}


@pytest.mark.parametrize("name", AGELESS)
@pytest.mark.parametrize("was", ["applied", "abandoned"])
async def test_of_a_key_that_does_not_tell_its_age_it_stays_that_it_was_used(name: str, was: str, home: Home) -> None:
    """Other programs may draw such keys; they go on when answers are forgotten, and a late copy is applied by none."""
    now = [1_700_000_000_000]
    request = AGELESS[name]
    async with hub_on(home.store(), environment=clocked(now)[0]) as hub:
        service = hub.service(Principal("ann"))
        if was == "applied":
            assert (await service.write(request)).status == "confirmed"
            for entry in request.entries:
                await service.write(direct(Op("delete", "cards", entry.id, scope=SCOPE), idem=f"undo {entry.id}"))
        else:
            assert (await resolve(service, "order 1")).abandoned
        now[0] += 31 * DAY_MS
        assert (await hub.compact(force=True)).answers > 0
        for _ in range(2):
            for again in (lambda: resolve(service, "order 1"), lambda: service.write(request)):
                with pytest.raises(RemoteError, match="use a new key") as refused:
                    await again()
                assert (refused.value.remote_code, what_helps(refused.value)) == ("KEY_EXPIRED", "clock")
        assert await rows(service) == {}, "and nothing of it"
        assert (await resolve(service, "order 2")).abandoned
        renamed = msgspec.structs.replace(request, idem="order 3")
        assert (await service.write(renamed)).status == "confirmed", "a new one is a new one"
        stranger = hub.service(Principal("bob"))
        assert (await resolve(stranger, "order 1")).abandoned, "the key of somebody else is another key"


@pytest.mark.parametrize("by", ["itself", "new_epoch"])
async def test_a_hub_that_was_restored_does_not_say_that_a_write_of_before_never_happened(
    tmp_path: Path, by: str
) -> None:
    now = [1_700_000_000_000]
    environment, ids = clocked(now)
    path, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    before, lost, unsent = ids(), ids(), ids()
    async with hub_on(path, environment=environment) as hub:
        await hub.service(Principal("ann")).write(direct(insert("1"), idem=before))
    shutil.copy(path, backup)
    now[0] += 60_000
    async with hub_on(path, environment=environment) as hub:
        await hub.service(Principal("ann")).write(direct(insert("2"), idem=lost))
        epoch = hub.identity.epoch
    now[0] += 60_000
    shutil.copy(backup, path)
    if by == "new_epoch":
        (tmp_path / "hub.db.hub-lock").unlink()  # so that the hub cannot tell
    async with hub_on(path, environment=environment) as hub:
        if by == "new_epoch":
            assert hub.identity.epoch == epoch
            await hub.new_epoch()
        assert hub.identity.epoch != epoch
        service = hub.service(Principal("ann"))
        found = await resolve(service, before)
        assert found.result is not None, "what the restored file knows is told"
        for key in (lost, unsent):
            for again in (lambda key=key: resolve(service, key), lambda key=key: service.write(direct(insert("2"), idem=key))):  # fmt: skip
                with pytest.raises(RemoteError, match="restored") as refused:
                    await again()
                assert refused.value.remote_code == "KEY_EXPIRED"
        assert await rows(service) == {"1": "t"}
        now[0] += 1
        assert (await service.write(direct(insert("2"), idem=ids()))).status == "confirmed"


async def test_a_late_copy_of_a_write_whose_answer_is_forgotten_is_not_applied_again(home: Home) -> None:
    now = [1_700_000_000_000]
    environment, ids = clocked(now)
    async with hub_on(home.store(), environment=environment) as hub:
        service = hub.service(Principal("ann"))
        for entries, atomic in (
            ((insert("1"),), False),
            ((insert("2"), insert("3")), False),
            ((insert("4"), insert("5")), True),
        ):
            late = direct(*entries, idem=ids(), atomic=atomic)
            assert (await service.write(late)).status == "confirmed"
            again = await service.write(late)
            assert again.status == "confirmed", "the answer is kept"
            now[0] += 40 * DAY_MS
            for entry in entries:
                await service.write(direct(Op("patch", "cards", entry.id, {"title": "newer"}, scope=SCOPE), idem=ids()))
                await service.write(direct(Op("delete", "cards", entry.id, scope=SCOPE), idem=ids()))
            await hub.compact()
            with pytest.raises(RemoteError, match="not applied now") as refused:
                await service.write(late)
            assert refused.value.remote_code == "KEY_EXPIRED"
            assert (await rows(service)) == {}, "and nothing of it"
            assert (await service.write(direct(*entries, idem=ids(), atomic=atomic))).status == "confirmed"
            for entry in entries:
                await service.write(direct(Op("delete", "cards", entry.id, scope=SCOPE), idem=ids()))


async def test_a_device_whose_clock_is_days_behind_is_told_so_and_writes_once_it_is_set(home: Home) -> None:
    now, device = [1_700_000_000_000], [1_600_000_000_000]
    environment, _ = clocked(now)
    _, ids = clocked(device)
    async with hub_on(home.store(), environment=environment) as hub:
        service = hub.service(Principal("ann"))
        await service.write(
            direct(insert("1"), idem=ids())
        )  # nothing is forgotten yet, so that its clock does not matter
        now[0] += 31 * DAY_MS
        await hub.compact(force=True)
        with pytest.raises(
            RemoteError, match=r"2020-09-13.*2023-12-15.*clock of its device is wrong: set it"
        ) as refused:
            await service.write(direct(insert("2"), idem=ids()))
        assert (refused.value.remote_code, what_helps(refused.value)) == ("KEY_EXPIRED", "clock")
        assert refused.value.info["hub_ms"] == str(now[0])
        assert int(refused.value.info["drawn_ms"]) == device[0]
        device[0] = now[0]
        assert (await service.write(direct(insert("2"), idem=ids()))).status == "confirmed"
        client = Client(service, b"c" * 16)
        assert (await client.do(Op("create", "cards", "3", card("pushed")))).status == "applied", "no key, no age"


async def test_a_clock_that_is_far_ahead_forgets_nothing_unless_forced_and_then_no_fresh_key(home: Home) -> None:
    now = [1_700_000_000_000]
    environment, ids = clocked(now)
    async with hub_on(home.store(), environment=environment) as hub:
        service = hub.service(Principal("ann"))
        written = ids()
        await service.write(direct(insert("1"), idem=written))
        now[0] += 365 * DAY_MS
        with pytest.raises(ClockAhead, match=r"nobody was here for 365 days.*force=True") as ahead:
            await hub.compact()
        assert (ahead.value.code, what_helps(ahead.value)) == ("CLOCK_AHEAD", "clock")
        assert (await resolve(service, written)).result is not None, "nothing was forgotten"
        report = await hub.compact(force=True)
        assert report.answers == 1
        now[0] -= 365 * DAY_MS - 2 * 3_600_000  # the clock is set right, two hours after the write
        fresh = ids()
        assert (await service.write(direct(insert("2"), idem=fresh))).status == "confirmed"
        with pytest.raises(RemoteError) as refused:
            await service.write(direct(insert("9"), idem=written))
        assert refused.value.remote_code == "KEY_EXPIRED", "its answer was forgotten"
        await hub.compact()  # with a clock that is right there is nothing to refuse


async def test_a_key_from_beyond_the_calendar_is_refused_in_words(home: Home) -> None:
    """Whoever draws its own may say any time; the hub's clock was wrong as well, and its answers were forgotten by force."""
    now = [300_000_000_000_000]  # the year 11476, which no date has
    environment, _ = clocked(now)
    drawn_ms = 2**48 - 1
    key = f"{drawn_ms >> 16:08x}-{drawn_ms & 0xFFFF:04x}-7000-8000-000000000000"
    async with hub_on(home.store(), environment=environment) as hub:
        service = hub.service(Principal("ann"))
        await service.write(direct(insert("1"), idem="k"))
        now[0] += 31 * DAY_MS
        await hub.compact(force=True)
        with pytest.raises(
            RemoteError, match=rf"drawn at {drawn_ms} ms after 1970.* {now[0]} ms after 1970"
        ) as refused:
            await service.write(direct(insert("2"), idem=key))
        assert refused.value.remote_code == "KEY_EXPIRED"


async def test_clients_are_not_all_forgotten_by_a_clock_that_is_far_ahead(home: Home) -> None:
    now = [1_700_000_000_000]
    environment, _ = clocked(now)
    async with hub_on(home.store(), environment=environment) as hub:
        client = Client.of(hub, "a")
        await client.do(Op("create", "cards", "1", card("mine")))
        now[0] += 500 * DAY_MS
        with pytest.raises(ClockAhead, match="every client"):
            await hub.compact()
        assert (await hub.compact(force=True)).clients == 1


async def test_a_hub_that_somebody_uses_forgets_its_last_answer_without_force(home: Home) -> None:
    """One direct write long ago, and devices that sync: the clock is right."""
    now = [1_700_000_000_000]
    environment, ids = clocked(now)
    async with hub_on(home.store(), environment=environment) as hub:
        await hub.service(Principal("ann")).write(direct(insert("1"), idem=ids()))
        now[0] += 40 * DAY_MS
        await Client.of(hub, "a").do(Op("create", "cards", "2", card("mine")))
        assert (await hub.compact()).answers == 1


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


async def test_cancelled_it_may_be_asked_again(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        service = hub.service(Principal("ann"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await resolve(service, "k")
        assert scope.cancelled_caught
        again = await resolve(service, "k")
        assert again.abandoned
