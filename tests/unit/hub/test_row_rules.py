"""Rules about single rows: what a caller sees and writes of a store, whatever way they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest

from atoma import Sync, open_client
from atoma.contracts.execution import OperationContext, QueryRequest, WriteItemResult, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op, OpKind
from atoma.contracts.query import Agg, Call, Col, Exists, Join, Named, Plan, Store
from atoma.contracts.sync import (
    Cursor,
    NotifyRequest,
    OpenRequest,
    PullRequest,
    SnapshotRequest,
)
from atoma.errors import ConfigurationError, RemoteError, WriteRejected
from atoma.hub import AllowLoopback, Caller, Hub, RowRule, open_hub
from atoma.plugins import Plugin
from atoma.ports import Transport
from atoma.ports.service import Principal, SyncService
from atoma.query.normal import bind
from atoma.query.plans import by_ids
from atoma.schema import Index, Schema, StoreSpec
from atoma.schema.expressions import Condition, Expression, col
from atoma.testing.queries import count_of, rows_of
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters import ServiceProxy
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.unit.hub.kit import Client


@dataclass
class Note:
    id: str
    owner: str
    text: str
    team: str | None = None


@dataclass
class Door:
    id: str
    owner: str
    open: bool


@dataclass
class Post:
    id: str
    note: str


NOTES = StoreSpec("notes", Note, replicate=False, indexes=[Index("owner")])
APART = StoreSpec("apart", Note, scope="apart", replicate=False)
POSTS = StoreSpec("posts", Post)
SCHEMA = Schema(NOTES, APART, POSTS)
CONTEXT = OperationContext("trace")
ANN, BOB = Principal("ann", {"team": "red"}), Principal("bob")


def of_owner_or_team(caller: Caller) -> Condition:
    return (NOTES.col(lambda note: note.owner) == caller.subject) | (col("team") == caller.claim("team"))


def own(caller: Caller) -> Condition:
    return col("owner") == caller.subject


@asynccontextmanager
async def hub_with_rules(**rules: RowRule) -> AsyncIterator[Hub]:
    store = SQLiteHubStore(":memory:")
    given = rules or {"notes": of_owner_or_team}
    async with open_hub(SCHEMA, store, verifier=AllowLoopback(), row_rules=given) as hub:
        ann, bob = hub.service(ANN), hub.service(BOB)
        assert await wrote(ann, "create", "n1", owner="ann", text="mine", team=None) == ""
        assert await wrote(bob, "create", "n2", owner="bob", text="bobs", team=None) == ""
        assert await wrote(bob, "create", "n3", owner="bob", text="theirs", team="red") == ""
        for number in (1, 2, 3):
            post = Op("create", "posts", f"p{number}", {"note": f"n{number}"})
            await ann.write(WriteRequest((post,), WriteOptions(), CONTEXT, f"post {number}"))
        yield hub


keys = iter(range(1_000_000))


async def written(
    service: SyncService, *entries: Op, reads: tuple[tuple[str, str, int | None], ...] = ()
) -> tuple[WriteItemResult, ...]:
    options = WriteOptions(atomic=True, reads=reads)
    return (await service.write(WriteRequest(entries, options, CONTEXT, f"key {next(keys)}"))).items


async def wrote(service: SyncService, kind: OpKind, id: str, **values: Any) -> str:
    """The code of the refusal, or nothing."""
    (item,) = await written(service, Op(kind, "notes", id, values))
    return item.error.code if item.error else ""


async def seen(service: SyncService, plan: Plan) -> Any:
    result = await service.query(QueryRequest(bind(plan, SCHEMA.store), CONTEXT))
    return [row.id for row in result.rows] if plan.columns is None and not plan.joins else list(result.tuples)


async def test_a_query_finds_what_the_rule_lets_through() -> None:
    async with hub_with_rules() as hub:
        for principal, ids in ((ANN, ["n1", "n3"]), (BOB, ["n2", "n3"]), (Principal("cid"), [])):
            service = hub.service(principal)
            assert [row.id for row in (await service.query(QueryRequest(rows_of("notes"), CONTEXT))).rows] == ids
            found = await service.query(QueryRequest(by_ids("notes", ("n1", "n2", "n3")), CONTEXT))
            assert [row.id for row in found.rows] == ids
            assert (await service.query(QueryRequest(count_of("notes"), CONTEXT))).tuples == ((len(ids),),)
            same = Call("eq", (Col(0, "note"), Col(1, "id")))
            posts = Plan(Store("posts"), joins=(Join("left", Store("notes"), same),),
                         columns=(Named("post", Col(0, "id")), Named("note", Col(1, "id"))))  # fmt: skip
            assert [note for _, note in await seen(service, posts) if note] == ids
            there = Exists(Plan(Store("notes"), where=Call("eq", (Col(0, "id"), Col(-1, "note")))))
            assert await seen(service, Plan(Store("posts"), where=there)) == [id.replace("n", "p") for id in ids]
            longest = Plan(Store("notes"), columns=(Named("last", Agg("max", Col(0, "id"))),))
            assert await seen(service, longest) == [(ids[-1] if ids else None,)]


async def test_a_write_may_leave_the_rule_neither_before_nor_after() -> None:
    async with hub_with_rules() as hub:
        ann = hub.service(ANN)
        assert await wrote(ann, "patch", "n2", text="x") == "DENIED"
        assert await wrote(ann, "delete", "n2") == "DENIED"
        assert await wrote(ann, "upsert", "n2", owner="ann", text="x") == "DENIED"
        assert await wrote(ann, "replace", "n2", owner="ann", text="x", team=None) == "DENIED"
        assert await wrote(ann, "create", "n2", owner="ann", text="x", team=None) == "DENIED"
        assert await wrote(ann, "create", "n9", owner="bob", text="x", team=None) == "DENIED"
        assert await wrote(ann, "patch", "n1", owner="bob") == "DENIED"
        assert await wrote(ann, "patch", "n3", team="blue") == "DENIED"
        assert await wrote(ann, "patch", "n3", text="ours") == ""
        assert await wrote(ann, "patch", "n1", owner="bob", team="red") == ""
        assert await wrote(ann, "delete", "n3") == ""
        assert await wrote(hub.service(BOB), "delete", "n1") == ""
        rows = (await hub.service(BOB).query(QueryRequest(rows_of("notes"), CONTEXT))).rows
        assert [(row.id, row.image["text"]) for row in rows] == [("n2", "bobs")]


async def test_a_unit_is_refused_whole_and_shows_nothing_of_what_lies_outside() -> None:
    async with hub_with_rules() as hub:
        ann = hub.service(ANN)
        good, bad = Op("patch", "notes", "n1", {"text": "new"}), Op("patch", "notes", "n2", {"text": "new"})
        items = await written(ann, good, bad)
        assert [item.error and item.error.code for item in items] == ["ABORTED", "DENIED"]
        assert "bobs" not in repr(items)
        for version in (1, 2, 3):  # what lies outside is as if it were not there
            (item,) = await written(ann, good, reads=(("notes", "n2", version),))
            assert item.error is not None
            assert item.error.code == "CONFLICT"
        (item,) = await written(ann, good, reads=(("notes", "n2", None),))
        assert item.error is None


def outcome_of(reply: Any) -> tuple[str, str]:
    (outcome,) = reply.outcomes
    assert outcome.error is not None
    return outcome.error.code, outcome.error.message


async def test_nothing_of_a_store_that_does_not_replicate_goes_out_or_comes_in_by_sync() -> None:
    async with hub_with_rules() as hub:
        ann = hub.service(ANN)
        page = await ann.pull(PullRequest("main", Cursor(), b"the-file-of-ann"))
        assert [(part.store, len(part.rows)) for part in page.stores] == [("posts", 3)]
        snapshot = await ann.snapshot(SnapshotRequest("main", b"the-file-of-ann"))
        assert [(part.store, len(part.rows)) for part in snapshot.stores] == [("posts", 3)]
        step = await ann.snapshot(SnapshotRequest("main", b"the-file-of-ann", max_rows=1))
        assert b"notes" not in step.token
        client = Client.of(hub, "device", "ann")
        client.write(Op("create", "notes", "n9", {"owner": "ann", "text": "x", "team": None}))
        reply = await client.push()
        code, message = outcome_of(reply)
        assert code == "DENIED"
        assert "'notes'" in message
        assert await wrote(ann, "patch", "n9", text="x") == "NOT_FOUND"


REFUSED: dict[str, Callable[[SyncService], Any]] = {
    "pull": lambda service: service.pull(PullRequest("apart", Cursor(), b"the-file-of-ann")),
    "snapshot": lambda service: service.snapshot(SnapshotRequest("apart", b"the-file-of-ann")),
    "notify": lambda service: _first(service, "apart"),
    "notify beside another": lambda service: _first(service, "main", "apart"),
}


async def _first(service: SyncService, *scopes: str) -> object:
    async with service.notify(NotifyRequest(scopes)) as hints:
        return await anext(hints)


@pytest.mark.parametrize("wire", ["memory", "websocket", "grpc", "http"])
async def test_a_scope_in_which_nothing_replicates_is_refused_with_the_reason(wire: str) -> None:
    network = MemoryNetwork()
    async with hub_with_rules() as hub, network.listen(hub), open_server(hub, "127.0.0.1:0") as address:
        roads: dict[str, Transport] = {
            "memory": MemoryTransport(network),
            "websocket": WebSocketTransport(f"ws://{address}/sync"),
            "grpc": GrpcTransport(f"grpc://{address}"),
            "http": HttpTransport(f"http://{address}"),
        }
        async with roads[wire].connect() as channel:
            service = ServiceProxy(channel)
            for way, ask in REFUSED.items():
                with pytest.raises(RemoteError, match=r"'apart' .* queries and direct writes") as refused:
                    await ask(service)
                assert refused.value.remote_code == "PERMISSION_DENIED", way
            reply = await service.open(OpenRequest(b"the-file-of-ann", 1, 1, SCHEMA.hash, ("apart", "main")))
            assert [status.error and status.error.code for status in reply.scopes] == ["PERMISSION_DENIED", None]
            assert "'apart'" in str(reply.scopes[0].error)


def two(caller: Caller) -> Condition:
    return Expression(Exists(Plan(Store("posts"))))


MISMADE: dict[str, tuple[Any, str]] = {
    "of no store": ({"nothing": own}, "there is no store 'nothing'; there are: notes"),
    "on a column that there is not": ({"notes": lambda caller: col("onwer") == caller.subject}, "no field 'onwer'"),
    "on a column of another store": (
        {"notes": lambda caller: POSTS.col(lambda post: post.note) == caller.subject},
        "that is a column of 'posts'",
    ),
    "that is not a condition": ({"notes": lambda caller: True}, "a condition is made with col"),
    "that decides in Python": ({"notes": lambda caller: caller.subject == "ann" and own(caller)}, "combine conditions"),
    "that looks at other rows": ({"notes": two}, "looks at one row"),
    "that takes a claim for a pattern": (
        {"notes": lambda caller: Expression(Call("like", (Col(0, "text"), caller.claim("team").node)))},
        "does not go into like",
    ),
    "that is none": ({"notes": "owner = subject"}, "must be a function of the caller"),
    "in a list": ([own], "row_rules must be a mapping"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISMADE)
async def test_a_rule_that_does_not_fit_is_found_when_the_hub_opens(name: str) -> None:
    rules, words = MISMADE[name]
    with pytest.raises(ConfigurationError, match=words):
        async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback(), row_rules=rules):
            pass


FORMS: dict[str, tuple[RowRule, dict[str, Any], dict[str, Any]]] = {
    "a column that is a condition": (lambda caller: cast("Condition", col("open")), {"open": True}, {"open": False}),
    "without a fact": (lambda caller: col("owner") != "ann", {"owner": "x"}, {"owner": "ann"}),
    "whether there is a claim": (
        lambda caller: ~caller.claim("team").is_null() & (col("owner") == caller.subject),
        {"owner": "local"},
        {"owner": "x"},
    ),
    "one of several": (lambda caller: col("owner").in_(["x", "local"]), {"owner": "x"}, {"owner": "ann"}),
    "whatever is there": (lambda caller: col("owner").like("l%") & col("owner").not_null(), {"owner": "lo"}, {"owner": "x"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
async def test_a_rule_is_any_condition_on_a_row(name: str) -> None:
    rule, inside, outside = FORMS[name]
    schema = Schema(StoreSpec("doors", Door, replicate=False))
    async with open_hub(schema, SQLiteHubStore(":memory:"), verifier=AllowLoopback(), row_rules={"doors": rule}) as hub:
        service = hub.service(Principal("local", {"team": "red"}))
        codes: list[str] = []
        for number, values in enumerate((inside, outside)):
            image = {
                "owner": "local",
                "open": 1,
                **{key: int(v) if v is True or v is False else v for key, v in values.items()},
            }
            (item,) = await written(service, Op("create", "doors", str(number), image))
            codes.append(item.error.code if item.error else "")
        assert codes == ["", "DENIED"]
        rows = (await service.query(QueryRequest(rows_of("doors"), CONTEXT))).rows
        assert [row.id for row in rows] == ["0"]


async def test_a_fact_that_no_column_can_hold_finds_nothing() -> None:
    other = {"notes": lambda caller: col("owner") != caller.claim("not")}
    async with hub_with_rules() as hub:
        for claim in ("\x00", "\udcff"):
            rows = await hub.service(Principal("x", {"team": claim})).query(QueryRequest(rows_of("notes"), CONTEXT))
            assert rows.rows == ()
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback(), row_rules=other) as hub:
        assert await wrote(hub.service(BOB), "create", "n", owner="bob", text="x", team=None) == "DENIED"
        assert (
            await wrote(hub.service(Principal("y", {"not": "x"})), "create", "n", owner="bob", text="", team=None) == ""
        )
        assert (await hub.service(BOB).query(QueryRequest(rows_of("notes"), CONTEXT))).rows == ()


async def test_a_store_that_does_not_replicate_is_none_to_sync() -> None:
    network = MemoryNetwork()
    plugins: list[Plugin] = [
        LocalExecution(SQLiteEngine(":memory:")), Remote(MemoryTransport(network)), Sync([POSTS, NOTES])
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match="'notes' is declared with replicate=False"):
        async with open_client(SCHEMA, plugins=plugins):
            pass


async def test_a_device_asks_and_writes_such_a_store_at_the_hub() -> None:
    network = MemoryNetwork()
    plugins: list[Plugin] = [LocalExecution(SQLiteEngine(":memory:")), Remote(MemoryTransport(network))]
    async with (
        hub_with_rules(notes=own) as hub,
        network.listen(hub),
        open_client(SCHEMA, plugins=plugins, policy="direct-remote") as client,
    ):
        notes = client.store(NOTES)
        with pytest.raises(WriteRejected) as refused:
            await notes.insert(Note("x", "ann", "not mine"), confirm="strict")
        assert refused.value.reason == "DENIED"
        await notes.insert(Note("x", "local", "mine"), confirm="strict")
        assert [note.id for note in (await notes.get_all()).items] == ["x"]
        with pytest.raises(WriteRejected) as hidden:
            await notes.update("n1", text="x", confirm="strict")
        assert hidden.value.reason == "DENIED"
