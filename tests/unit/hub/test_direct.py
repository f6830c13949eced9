"""Direct queries and writes at the hub."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.contracts.codec import decode, encode
from atoma.contracts.execution import OperationContext, QueryRequest, ResolveRequest
from atoma.contracts.limits import ROWS_MAX
from atoma.contracts.mutations import Op, OpKind
from atoma.contracts.query import BoundQuery, Call, Col, Lit
from atoma.contracts.sync import Limits
from atoma.errors import RemoteError
from atoma.hub import Access
from atoma.ports import WriteNode, seeded_environment
from atoma.ports.service import Principal
from atoma.query import Rows, bind, col, select
from atoma.query.plans import by_ids, number_of
from atoma.schema import Drop, Schema, StoreSpec
from atoma.schema.expressions import Expression
from atoma.testing.queries import count_of, rows_of
from atoma_stores.local import LocalWriteNode
from atoma_stores.sqlite import SQLiteEngine
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import CARDS, SCHEMA, SCOPE, Card, Client, card, direct, hub_on, pull_all


def insert(id: str, title: str = "t", board: str = SCOPE) -> Op:
    return Op("create", "cards", id, {**card(title), "board": board}, scope=board)


class Boards:
    """ann: red and blue; bob: blue to read."""

    def scope_access(self, principal: Principal, scope: str) -> Access:
        if principal.subject == "ann":
            return "write" if scope in ("red", "blue") else "none"
        return "read" if scope == "blue" else "none"


async def test_direct_writes_reach_syncing_clients(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        result = await client.service.write(direct(insert("1"), insert("2"), idem="k1"))
        assert (result.status, [(i.ok, i.changed, i.version) for i in result.items]) == (
            "confirmed", [(True, True, 1), (True, True, 2)]
        )  # fmt: skip
        update = Op("patch", "cards", "1", {"title": "new"})
        delete = Op("delete", "cards", "2", scope=SCOPE)
        await client.service.write(direct(update, delete, idem="k2", atomic=True))
        rows, end = await pull_all(client)
        assert end.seq == 3
        assert rows == {("cards", "1"): {**card("new"), "board": SCOPE}}
        met = await client.do(Op("patch", "cards", "1", {"title": "mine"}), base=2)
        assert (met.status, met.conflicts[0].fields) == ("merged", ("title",))


async def test_the_same_key_gets_the_same_answer(home: Home) -> None:
    store = home.store()
    request = direct(insert("1"), insert("1"), Op("delete", "cards", "1", scope=SCOPE), idem="once")
    async with hub_on(store) as hub:
        first = await Client.of(hub, "a").service.write(request)
        assert [item.ok for item in first.items] == [True, False, True]
    async with hub_on(store) as hub:
        client = Client.of(hub, "a")
        again = await client.service.write(request)
        assert (again.status, again.items) == (first.status, first.items)
        assert (await pull_all(client))[1].seq == 2
        other = await hub.service(Principal("bob")).write(request)
        assert other.items[0].version == 3  # keys belong to their principal
        await hub.compact(keep=10, keep_days=30)
        assert (await client.service.write(request)).items == first.items


async def test_the_same_key_at_the_same_time_is_applied_once(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        versions: list[int] = []

        async def write() -> None:
            entry = Op("upsert", "cards", "1", {"lane": "done"}, scope=SCOPE, defaults={"title": "t"})
            versions.append((await client.service.write(direct(entry, idem="k"))).items[0].version)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(write)
        assert versions == [1] * 10
        assert (await client.query())["1"] == {**card("t", lane="done"), "board": SCOPE}


async def test_entries_are_refused_one_by_one_with_their_reason(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await client.service.write(direct(insert("1"), idem="k"))
        cases = {
            "CONFLICT": [insert("1"), Op("patch", "cards", "1", {"done": 1}, scope=SCOPE, base_version=7)],
            "NOT_FOUND": [
                Op("patch", "cards", "9", {"done": 1}),
                Op("delete", "cards", "9", scope=SCOPE),
            ],
            "INVALID": [
                Op("create", "nowhere", "1", scope=SCOPE),
                Op("patch", "cards", "1", {"rank": float("nan")}, scope=SCOPE),
                Op("patch", "cards", "1", {"colour": "red"}, scope=SCOPE),
                Op("patch", "cards", "1", {"board": "other"}, scope=SCOPE),
                Op("upsert", "cards", "2", {"lane": "done"}, scope=SCOPE),
                Op("create", "cards", "", {"title": "t"}, scope=SCOPE),
            ],
        }
        entries = [(code, entry) for code, group in cases.items() for entry in group]
        result = await client.service.write(direct(*(entry for _, entry in entries), idem="many"))
        assert [item.error.code if item.error else "" for item in result.items] == [code for code, _ in entries]
        assert result.status == "rejected"
        assert (await pull_all(client))[1].seq == 1


VALUES: dict[OpKind, dict[str, Any]] = {
    "create": {**card("new"), "board": SCOPE},
    "patch": {"title": "new"},
    "replace": {**card("new"), "board": SCOPE},
    "upsert": {"title": "new"},
    "delete": {},
}


async def test_a_device_and_a_hub_decide_alike(home: Home) -> None:
    """Every kind on a row that is there or not, with every version that a caller may have seen."""
    device = SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset())
    async with hub_on(home.store()) as hub, device as database:
        client, node = Client.of(hub, "a"), LocalWriteNode(database)
        for number, (kind, there, seen) in enumerate(
            itertools.product(VALUES, (True, False), (None, "none", "right", "wrong"))
        ):
            id = f"row {number}"
            versions = [0, 0]
            if there:
                first = direct(insert(id), idem=f"first {id}")
                versions = [
                    one.items[0].version for one in (await client.service.write(first), await node.write(first))
                ]
            results = []
            writers: tuple[WriteNode, WriteNode] = (client.service, node)
            for writer, version in zip(writers, versions, strict=True):
                base = {None: None, "none": 0, "right": version, "wrong": 10**6}[seen]
                defaults = {**card("default"), "board": SCOPE} if kind == "upsert" else {}
                op = Op(kind, "cards", id, VALUES[kind], defaults, scope=SCOPE, base_version=base)
                (item,) = (await writer.write(direct(op, idem=f"second {id}"))).items
                error = item.error and (
                    item.error.code,
                    item.error.message.replace(f"at {version};", "at its version;"),
                )
                results.append((item.ok, item.changed, error, item.row if item.ok else None))
            assert results[0] == results[1], (kind, there, seen)


async def test_a_direct_delete_has_no_values(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await client.service.write(direct(insert("1"), idem="k"))
        (item,) = (await client.service.write(direct(Op("delete", "cards", "1", {"title": "x"}), idem="d"))).items
        assert item.error is not None
        assert item.error.code == "INVALID"


async def test_an_atomic_write_is_all_or_nothing_and_checks_what_it_read(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await client.service.write(direct(insert("1"), idem="k"))
        refused = await client.service.write(direct(insert("2"), insert("1"), insert("3"), idem="a", atomic=True))
        assert [item.error.code if item.error else "" for item in refused.items] == ["ABORTED", "CONFLICT", "ABORTED"]
        two = await client.service.write(direct(insert("2"), insert("3", board="other"), idem="b", atomic=True))
        assert {item.error.code for item in two.items if item.error} == {"INVALID", "ABORTED"}
        stale = direct(insert("2"), idem="c", atomic=True, reads=(("cards", "1", 9),))
        assert (await client.service.write(stale)).status == "rejected"
        fresh = direct(insert("2"), idem="d", atomic=True, reads=(("cards", "1", 1), ("cards", "5", None)))
        assert (await client.service.write(fresh)).status == "confirmed"
        assert set(await client.query()) == {"1", "2"}


async def test_of_an_atomic_write_each_entry_says_whether_it_changed_its_row_and_which_version_that_has(
    home: Home,
) -> None:
    async with hub_on(home.store()) as hub:
        service = Client.of(hub, "a").service
        await service.write(direct(insert("kept"), insert("changed"), insert("deleted"), idem="k"))
        same, new = (Op("patch", "cards", id, {"title": title}) for id, title in (("kept", "t"), ("changed", "new")))
        unit = direct(same, new, Op("delete", "cards", "deleted", scope=SCOPE), idem="u", atomic=True)
        items = (await service.write(unit)).items
        assert [(item.changed, item.version) for item in items] == [(False, 1), (True, 4), (True, 0)]


async def test_a_base_version_is_the_hubs_sequence(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        version = (await client.service.write(direct(insert("1"), idem="k"))).items[0].version
        for expected, idem in (("confirmed", "x"), ("rejected", "y")):
            entry = Op("patch", "cards", "1", {"title": idem}, scope=SCOPE, base_version=version)
            assert (await client.service.write(direct(entry, idem=idem))).status == expected
        result = await client.service.query(QueryRequest(rows_of("cards"), OperationContext("t")))
        assert [(row.version, row.seq, row.image["title"]) for row in result.rows] == [(2, 2, "x")]


async def test_a_unique_value_is_refused_as_a_conflict(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        service = Client.of(hub, "a").service
        entries = [Op("create", "seats", id, {"place": "front"}, scope=SCOPE) for id in ("1", "2")]
        result = await service.write(direct(*entries, idem="k"))
        assert [item.error.code if item.error else "" for item in result.items] == ["", "CONFLICT"]


async def test_queries_and_writes_keep_to_the_scopes_one_may_use(home: Home) -> None:
    async with hub_on(home.store(), rules=Boards()) as hub:
        ann, bob = hub.service(Principal("ann")), hub.service(Principal("bob"))
        rows = [insert("1", board="red"), insert("2", board="blue"), insert("3", board="secret")]
        result = await ann.write(direct(*rows, idem="k"))
        assert [item.error.code if item.error else "" for item in result.items] == ["", "", "DENIED"]

        async def ids(service: object, query: Rows[Card] = select(CARDS)) -> list[str]:
            assert service in (ann, bob)
            asked = QueryRequest(bind(query, SCHEMA), OperationContext("t"))
            found = await (ann if service is ann else bob).query(asked)
            return [row.id for row in found.rows]

        assert await ids(ann) == ["1", "2"]
        assert await ids(bob) == ["2"]
        assert await ids(bob, select(CARDS).where(col("board") == "blue")) == ["2"]
        with pytest.raises(RemoteError) as refused:
            await ids(bob, select(CARDS).where(col("board") == "red"))
        assert refused.value.remote_code == "PERMISSION_DENIED"
        for service, expected in ((ann, ["1", "2"]), (bob, ["2"])):
            by_id = QueryRequest(by_ids("cards", ("2", "9", "1")), OperationContext("t"))
            assert [row.id for row in (await service.query(by_id)).rows] == expected
        count = QueryRequest(count_of("cards"), OperationContext("t"))
        assert [number_of(await service.query(count)) for service in (ann, bob)] == [2, 1]
        update = [Op("patch", "cards", id, {"done": 1}) for id in ("1", "2")]
        denied = await bob.write(direct(*update, idem="u"))
        assert [item.error.code if item.error else "" for item in denied.items] == ["NOT_FOUND", "DENIED"]


async def test_a_page_of_a_query_has_a_cursor_exactly_when_there_is_more(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        service = Client.of(hub, "a").service
        await service.write(direct(*(insert(f"{n:02}", f"title {n % 3}") for n in range(10)), idem="k"))
        query = select(CARDS).where(col("title") != "title 0").order_by("-title").limit(4)
        seen: list[str] = []
        for expected in (4, 2):
            result = await service.query(QueryRequest(bind(query, SCHEMA), OperationContext("t")))
            assert len(result.rows) == expected
            seen += [row.id for row in result.rows]
            assert bool(result.meta.cursor) == (expected == 4)
            query = query.after(result.meta.cursor)
        assert seen == ["02", "05", "08", "01", "04", "07"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (rows_of("cards", col("colour") == 1), "QUERY"),
        (rows_of("cards", col("_seq") == 1), "QUERY"),
        (rows_of("cards", col("title") == [1]), "QUERY"),
        (rows_of("cards", Expression(Call("in", (Col(0, "title"), *[Lit("text", "x")] * 1_001)))), "QUERY"),
        (rows_of("cards", order_by=("nope",)), "QUERY"),
        (rows_of("cards", after=("a", "b")), "QUERY"),
        (rows_of("cards", limit=-1), "QUERY"),
        (rows_of("cards", limit=10_001), "TOO_LARGE"),
        (by_ids("cards", ("x",) * 1_001), "QUERY"),
    ],
)
async def test_a_query_from_a_stranger_is_checked(query: BoundQuery, code: str, home: Home) -> None:
    async with hub_on(home.store()) as hub:
        with pytest.raises(RemoteError) as refused:
            await Client.of(hub, "a").service.query(QueryRequest(query, OperationContext("t")))
        assert refused.value.remote_code == code


async def test_answers_and_nesting_are_bounded(home: Home) -> None:
    nested = col("title") == "x"
    for _ in range(40):
        nested = ~nested
    async with hub_on(home.store(), limits=Limits(page_bytes=2000, mutation_ops=3)) as hub:
        service = Client.of(hub, "a").service
        for number in range(3):
            await service.write(direct(insert(str(number), "x" * 900), idem=f"k{number}"))
        for query, code in ((rows_of("cards"), "TOO_LARGE"), (rows_of("cards", nested), "QUERY")):
            with pytest.raises(RemoteError) as refused:
                await service.query(QueryRequest(query, OperationContext("t")))
            assert refused.value.remote_code == code
        assert len((await service.query(QueryRequest(rows_of("cards", limit=1), OperationContext("t")))).rows) == 1
        for request, code in (
            (direct(*[insert("9")] * 4, idem="k"), "TOO_LARGE"),
            (direct(idem="k"), "MALFORMED"),
            (direct(insert("9"), idem=""), "MALFORMED"),
        ):
            with pytest.raises(RemoteError) as refused:
                await service.write(request)
            assert refused.value.remote_code == code


async def test_an_answer_has_as_many_rows_as_it_may_have_and_none_more(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        for first in range(0, ROWS_MAX, 1000):
            await client.do(*(Op("create", "cards", str(id), card("")) for id in range(first, first + 1000)))
        wide = QueryRequest(rows_of("cards", limit=ROWS_MAX), OperationContext("t"))
        for query in (rows_of("cards"), wide.query):
            assert len((await client.service.query(QueryRequest(query, wide.context))).rows) == ROWS_MAX
        assert not (await client.service.query(wide)).meta.cursor, "there is no more"
        await client.do(Op("create", "cards", "more", card("")))
        page = await client.service.query(wide)
        assert len(page.rows) == ROWS_MAX and page.meta.cursor
        with pytest.raises(RemoteError, match=f"more than {ROWS_MAX} rows"):
            await client.query()


async def test_what_was_written_is_told_without_its_rows_when_they_do_not_fit_into_an_answer(home: Home) -> None:
    async with hub_on(home.store(), limits=Limits(page_bytes=4_000)) as hub:
        service = hub.service(Principal("ann"))
        for id in "abc":
            await service.write(direct(insert(id, "t" * 900), idem=f"new {id}"))
        small = [Op("patch", "cards", id, {"lane": "done"}, scope=SCOPE) for id in "abc"]
        result = await service.write(direct(*small, idem="k"))
        assert [(item.ok, item.changed, item.version) for item in result.items] == [(True, True, n) for n in (4, 5, 6)]
        assert [item.row is not None for item in result.items] == [True, True, False]
        assert (await service.write(direct(*small, idem="k"))).items == result.items
        found = await service.resolve(ResolveRequest("k", OperationContext("trace")))
        assert found.result is not None
        assert found.result.items == result.items


async def test_of_an_atomic_write_that_is_too_large_as_a_whole_the_first_entry_says_so(home: Home) -> None:
    async with hub_on(home.store(), limits=Limits(page_bytes=1_500)) as hub:
        wide = direct(insert("1", "t" * 900), insert("2", "t" * 900), idem="k", atomic=True)
        items = (await hub.service(Principal("ann")).write(wide)).items
        assert [item.error and item.error.code for item in items] == ["TOO_LARGE", "ABORTED"]


@pytest.mark.parametrize(("spare", "told"), [(0, True), (-1, False)])
async def test_an_answer_has_every_row_that_fits_and_what_is_deleted_takes_no_room(
    spare: int, told: bool, home: Home
) -> None:
    store = home.store()
    async with hub_on(store) as hub:
        made = await hub.service(Principal("ann")).write(direct(*(insert(id, "t" * 900) for id in "abcd"), idem="new"))
    room = sum(len(encode(item.row)) for item in made.items[1:]) + spare
    async with hub_on(store, limits=Limits(page_bytes=2 * room)) as hub:  # half of it is for rows
        same = [Op("patch", "cards", id, {"lane": "todo"}, scope=SCOPE) for id in "bcd"]
        result = await hub.service(Principal("ann")).write(
            direct(Op("delete", "cards", "a", scope=SCOPE), *same, idem="k")
        )
        assert [item.row is not None for item in result.items] == [False, True, True, told]


@dataclass(frozen=True)
class Walk:
    id: str
    took: int = 0
    note: str | None = None


@dataclass(frozen=True)
class ShortWalk:
    id: str
    took: int = 0


@dataclass(frozen=True)
class Run:
    id: str
    took: timedelta = timedelta()


WALKS = StoreSpec("walks", Walk)
RUNS = StoreSpec("runs", Run)
SHORT = Schema(CARDS, StoreSpec("walks", ShortWalk), version=2, steps={2: [Drop("walks.note", was=str | None)]})
READINGS = {
    "as it is kept": (Schema(CARDS, WALKS), True),
    "unpacked": (Schema(CARDS, WALKS, RUNS), False),
    "with other fields": (SHORT, False),
}


@pytest.mark.parametrize(("schema", "told"), READINGS.values(), ids=READINGS)
async def test_an_answer_that_an_older_version_kept_without_the_store_has_its_rows_while_they_need_no_reading(
    schema: Schema, told: bool, tmp_path: Path
) -> None:
    request, path = direct(insert("1"), idem="k"), tmp_path / "hub.db"
    async with hub_on(path, schema=Schema(CARDS, WALKS)) as hub:
        (made,) = (await hub.service(Principal("ann")).write(request)).items
    with closing(sqlite3.connect(path)) as connection, connection:
        ((kept,),) = connection.execute("SELECT outcome FROM _atoma_hub_idem")
        before = encode([item[:6] for item in decode(kept, list[list[object]])])
        connection.execute("UPDATE _atoma_hub_idem SET outcome=?", (before,))
    async with hub_on(path, schema=schema) as hub:
        (item,) = (await hub.service(Principal("ann")).write(request)).items
        assert (item.ok, item.version, item.row) == (True, 1, made.row if told else None)
        (new,) = (await hub.service(Principal("ann")).write(direct(insert("2"), idem="new"))).items
        again = await hub.service(Principal("ann")).write(direct(insert("2"), idem="new"))
        assert again.items == (new,) and new.row is not None
