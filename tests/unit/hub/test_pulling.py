"""Pulling: cursors, pages, snapshots, compaction, hints."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from atoma.contracts.mutations import Op
from atoma.contracts.sync import Cursor, Hint, Limits, NotifyRequest, SnapshotRequest
from atoma.errors import RemoteError
from atoma.hub import Access
from atoma.ports.service import Principal
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import SCOPE, Client, Rows, apply_page, card, hub_on, snapshot_page


def create(id: str, title: str = "t") -> Op:
    return Op("create", "cards", id, card(title))


class OnlyMain:
    """Everybody reads main, nothing else."""

    def scope_access(self, principal: Principal, scope: str) -> Access:
        return "read" if scope == SCOPE else "none"


async def test_a_page_has_the_last_image_per_row_and_deletes(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await client.do(create("1", "old"))
        await client.do(create("2"))
        await client.do(Op("patch", "cards", "1", {"title": "new"}), base=2)
        await client.do(Op("delete", "cards", "2"), base=3)
        page = await client.pull()
        (changes,) = page.stores
        assert changes.columns == ("id", "title", "lane", "rank", "done", "board")
        assert changes.rows == ((3, "1", "new", "todo", 0.0, 0, SCOPE),)
        assert changes.deletes == ((4, "2"),)
        assert (page.end.seq, page.head, page.more) == (4, 4, False)
        early = await client.pull(max_changes=2)
        assert early.stores[0].rows == ((1, "1", "old", "todo", 0.0, 0, SCOPE), (2, "2", "t", "todo", 0.0, 0, SCOPE))
        assert (early.end.seq, early.head, early.more) == (2, 4, True)


async def test_a_page_is_cut_between_transactions_and_has_at_least_one(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await client.do(*(create(f"a{n}") for n in range(5)))
        await client.do(*(create(f"b{n}") for n in range(5)))
        for max_changes, max_bytes in ((1, 10_000), (9, 10_000), (5000, 1), (5000, -5)):
            page = await client.pull(max_changes=max_changes, max_bytes=max_bytes)
            assert (page.end.seq, page.more, len(page.stores[0].rows)) == (1, True, 5)
        assert len((await client.pull(max_changes=10)).stores[0].rows) == 10


async def test_an_outcome_comes_with_the_snapshot_of_its_page(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client, other = Client.of(hub, "a"), Client.of(hub, "b")
        await client.do(create("1"))
        await client.do(create("1", "another"))
        await client.do(create("2"))
        page = await client.pull(after=1)
        assert [(o.mid, o.status, o.seq) for o in page.outcomes] == [(2, "rejected", 0), (3, "applied", 2)]
        assert (await other.pull()).outcomes == ()
        assert (await client.pull(scope="else")).outcomes == ()


async def test_cursors_that_cannot_be_continued_are_refused_by_name(home: Home) -> None:
    async with hub_on(home.store("a")) as hub, hub_on(home.store("b")) as restored:
        client, there = Client.of(hub, "a"), Client.of(restored, "a")
        for number in range(3):
            await client.do(create(str(number)))
            await there.do(create(f"other{number}"))
        end = (await client.pull()).end
        epoch = end.epoch
        foreign = (await there.pull()).end
        for cursor, code in (
            (Cursor(b"x" * 16, 3, end.hash), "EPOCH_CHANGED"),
            (Cursor(b"", 3, end.hash), "EPOCH_CHANGED"),
            (Cursor(b"", 3, b""), "EPOCH_CHANGED"),
            (Cursor(b"x" * 16, 0, b""), "EPOCH_CHANGED"),
            (Cursor(epoch, 4, end.hash), "CURSOR_AHEAD"),
            (Cursor(epoch, 3, foreign.hash), "LINEAGE_MISMATCH"),
            (Cursor(epoch, 2, end.hash), "LINEAGE_MISMATCH"),
            (Cursor(epoch, 0, end.hash), "LINEAGE_MISMATCH"),
        ):
            with pytest.raises(RemoteError) as refused:
                await client.pull(cursor)
            assert (refused.value.remote_code, refused.value.remote_retryable) == (code, False)
        await hub.compact(keep=1)
        with pytest.raises(RemoteError) as old:
            await client.pull()
        assert old.value.remote_code == "CURSOR_TOO_OLD"
        assert (await client.pull(end)).end == end


async def test_reading_needs_access_everywhere(home: Home) -> None:
    async with hub_on(home.store(), rules=OnlyMain()) as hub:
        client = Client.of(hub, "a")
        assert (await client.pull()).end.seq == 0
        opened = await client.open(SCOPE, "secret")
        assert [s.error.code if s.error else "" for s in opened.scopes] == ["", "PERMISSION_DENIED"]
        with pytest.raises(RemoteError) as pulled:
            await client.pull(scope="secret")
        with pytest.raises(RemoteError) as scanned:
            await client.service.snapshot(SnapshotRequest("secret", client.client_id))
        with pytest.raises(RemoteError) as heard:
            async with client.service.notify(NotifyRequest((SCOPE, "secret"))):
                pass
        codes = {error.value.remote_code for error in (pulled, scanned, heard)}
        assert codes == {"PERMISSION_DENIED"}


async def test_a_compacted_log_keeps_the_rows_and_the_conflicts(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client, other = Client.of(hub, "a"), Client.of(hub, "b")
        for number in range(4):
            await client.do(create(str(number)))
        await client.do(Op("delete", "cards", "0"), base=4)
        await other.do(Op("patch", "cards", "1", {"lane": "done"}), base=5)
        report = await hub.compact(keep=1)
        assert (report.transactions, report.changes, report.tombstones, dict(report.floors)) == (5, 5, 1, {SCOPE: 5})
        again = await hub.compact(keep=1)
        assert (again.transactions, again.changes, again.tombstones) == (0, 0, 0)
        assert set(await client.query()) == {"1", "2", "3"}
        own = await client.do(Op("patch", "cards", "2", {"lane": "done"}), base=0)
        assert own.status == "applied"  # written by this client itself, though the log no longer tells
        met = await client.do(Op("patch", "cards", "1", {"title": "mine"}), base=0)
        assert met.status == "merged"  # the log behind its base is gone: every column counts as changed
        gone = await other.do(Op("patch", "cards", "0", {"title": "mine"}), base=0)
        assert gone.error is not None and gone.error.code == "CONFLICT"
        opened = await client.open()
        assert (opened.scopes[0].head, opened.scopes[0].floor) == (8, 5)


async def test_a_snapshot_and_its_tail_are_the_state(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        for number in range(20):
            await client.do(create(f"{number:02}"))
        rows: Rows = {}
        token, done, step = b"", False, 20
        start = Cursor()
        while not done:
            page, start, token, done = await snapshot_page(client, token, max_rows=3)
            rows.update(page)
            await client.do(Op("delete", "cards", f"{step % 20:02}"), base=step)
            await client.do(create(f"new{step}"))
            await client.do(Op("patch", "cards", f"{(step * 7) % 20:02}", {"title": "moved"}), base=step)
            step += 3
        assert start.seq == 20
        tail = await client.pull(start)
        apply_page(rows, tail)
        assert {id: row for (_, id), row in rows.items()} == await client.query()
        assert tail.end.seq == tail.head


async def test_a_snapshot_survives_a_restart_and_knows_its_limits(home: Home) -> None:
    store = home.store()
    async with hub_on(store) as hub:
        client = Client.of(hub, "a")
        for number in range(5):
            await client.do(create(str(number)))
        first, start, token, done = await snapshot_page(client, max_rows=2)
        assert (len(first), done) == (2, False)
    async with hub_on(store) as hub:
        client = client.on(hub)
        second, again, token, done = await snapshot_page(client, token, max_rows=2)
        assert (again, set(first) & set(second)) == (start, set())
        for wrong in (token[:-1], b"x" * 40, token[:20] + bytes([token[20] ^ 1]) + token[21:]):
            with pytest.raises(RemoteError) as damaged:
                await client.service.snapshot(SnapshotRequest(SCOPE, client.client_id, wrong))
            assert damaged.value.remote_code == "MALFORMED"
        for service, scope in ((hub.service(Principal("bob")), SCOPE), (client.service, "else")):
            with pytest.raises(RemoteError) as stolen:
                await service.snapshot(SnapshotRequest(scope, client.client_id, token))
            assert stolen.value.remote_code == "PERMISSION_DENIED"
        await client.do(create("5"))
        await hub.compact(keep=0)
        with pytest.raises(RemoteError) as expired:
            await client.service.snapshot(SnapshotRequest(SCOPE, client.client_id, token))
        assert (expired.value.remote_code, expired.value.remote_retryable) == ("SNAPSHOT_EXPIRED", False)


async def test_who_asks_for_nothing_at_a_time_gets_one_row_at_a_time(home: Home) -> None:
    """A page that goes nowhere would be asked for again and again."""
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        for number in range(3):
            await client.do(create(str(number)))
        token, done, pages = b"", False, list[int]()
        while not done:
            page, _, token, done = await snapshot_page(client, token, max_rows=0, max_bytes=0)
            pages.append(len(page))
            assert len(pages) < 10
        assert [size for size in pages if size] == [1, 1, 1]


async def test_an_empty_scope_has_an_empty_snapshot(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        rows, start, _, done = await snapshot_page(client)
        assert (rows, start, done) == ({}, Cursor(hub.identity.epoch, 0, b""), True)
        await client.do(create("1"))
        assert (await client.pull(start)).end.seq == 1


async def test_hints_tell_the_heads_now_and_then_the_latest_only(
    mock_clock: trio.testing.MockClock, home: Home
) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await client.do(create("1"))
        async with client.service.notify(NotifyRequest((SCOPE, "empty", SCOPE))) as hints:
            assert {await anext(hints), await anext(hints)} == {Hint(SCOPE, 1), Hint("empty", 0)}
            with trio.move_on_after(5) as quiet:
                await anext(hints)
            assert quiet.cancelled_caught
            for number in range(2, 7):
                await client.do(create(str(number)))
            assert await anext(hints) == Hint(SCOPE, 6)
            await client.do(Op("create", "cards", "1", card("t", board="unheard")), scope="unheard")
            await client.do(create("1"))  # refused: nothing to tell
            with trio.move_on_after(5) as quiet:
                await anext(hints)
            assert quiet.cancelled_caught


async def test_a_hint_wakes_a_waiting_listener(home: Home) -> None:
    heard: list[int] = []

    async def listen(client: Client, ready: trio.Event) -> None:
        async with client.service.notify(NotifyRequest((SCOPE,))) as hints:
            await anext(hints)
            ready.set()
            while not heard or heard[-1] < 10:
                heard.append((await anext(hints)).head)

    async with hub_on(home.store()) as hub, trio.open_nursery() as nursery:
        ready = trio.Event()
        nursery.start_soon(listen, Client.of(hub, "listener"), ready)
        await ready.wait()
        writer = Client.of(hub, "a")
        for number in range(10):
            await writer.do(create(str(number)))
    assert heard == sorted(set(heard))
    assert heard[-1] == 10


async def test_listeners_are_bounded_and_a_place_that_is_left_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoma.hub.hints.LISTENERS_MAX", 2)
    async with hub_on(":memory:") as hub:
        service = Client.of(hub, "a").service
        async with service.notify(NotifyRequest(("main",))):
            async with service.notify(NotifyRequest(("main",))):
                with pytest.raises(RemoteError) as refused:
                    async with service.notify(NotifyRequest(("main",))):
                        pass
                assert (refused.value.remote_code, refused.value.remote_retryable) == ("OVERLOADED", True)
            async with service.notify(NotifyRequest(("main",))):
                pass


async def test_the_lineage_of_a_log_is_the_same_in_every_version(home: Home) -> None:
    """Devices keep these hashes for ever: what makes them is part of the protocol."""
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        hashes = []
        for number in range(2):
            await client.do(create(str(number)))
            hashes.append((await client.pull()).end.hash.hex())
    assert hashes == ["3fc6c9b389d69353ff261d799c539556", "95dfe950e695a720bc666dcb2e3e1453"]


async def test_listeners_are_bounded_in_scopes(home: Home) -> None:
    async with hub_on(home.store(), limits=Limits(scopes=2)) as hub:
        client = Client.of(hub, "a")
        with pytest.raises(RemoteError) as refused:
            async with client.service.notify(NotifyRequest(("a", "b", "c"))):
                pass
        assert refused.value.remote_code == "TOO_LARGE"
