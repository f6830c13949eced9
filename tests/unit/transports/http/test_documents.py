"""Rows as documents over HTTP: what is pulled, pushed and streamed, and that a hub's rules hold there as anywhere else."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from typing import Annotated, Any, cast

import pytest
import trio

from atoma.contracts.execution import OperationContext, WriteRequest, WriteResult
from atoma.contracts.sync import Cursor, PullRequest
from atoma.hub import Access, Hub, StaticTokenVerifier, open_hub
from atoma.ports import Environment, Principal
from atoma.schema import Index, Scale, Schema, StoreSpec
from atoma.schema.expressions import col
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters import PassingService
from atoma_transports.http.documents.messages import PushedDocument
from atoma_transports.http.documents.pushing import push_documents
from atoma_transports.http.documents.reading import DocumentStore
from tests.unit.transports.http.kit import Answer, Client, open_site
from tests.unit.transports.http.test_openapi import validator


class Lane(Enum):
    TODO = "todo"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: str
    title: str
    owner: str = "ada"
    board: str = "main"
    done: bool = False
    lane: Lane = Lane.TODO
    hours: float = 0.0
    price: Annotated[Decimal, Scale(2)] = Decimal(0)
    note: str | None = None
    tags: list[str] | None = None
    photo: bytes | None = None
    due: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    id: str
    text: str
    votes: int = 0
    best: int = 0
    made: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    number: int | None = None


TASKS = StoreSpec("tasks", Task, scope="board", indexes=[Index("title", unique=True)])
WORDS = StoreSpec(
    "words",
    Word,
    scope="main",
    soft_delete=True,
    merge={"votes": "counter", "best": "max"},
    created_at="made",
    by="hub",
    hub_fields=["number"],
)
LOGS = StoreSpec("logs", Word, scope="main", replicate=False)
SCHEMA = Schema(TASKS, WORDS, LOGS)
TOKENS = {subject: subject for subject in ("ada", "bob", "carl")}
SCOPED = "?scope=main"


class Boards:
    """Carl reads only; the private board is Ada's."""

    def scope_access(self, principal: Principal, scope: str) -> Access:
        if scope == "private" and principal.subject != "ada":
            return "none"
        return "read" if principal.subject == "carl" else "write"


@dataclass
class Site:
    """A hub with documents, and a connection to it."""

    hub: Hub
    client: Client
    connect: Any

    async def ask(
        self, act: str, body: object, *, store: str = "tasks", scope: str = SCOPED, who: str = "ada"
    ) -> Answer:
        path = f"/v1/docs/{store}/{act}{scope}"
        return await self.client.ask("POST", path, json.dumps(body).encode(), authorization=f"Bearer {who}")

    async def told(self, kind: str, act: str, body: object, **how: Any) -> Any:
        """The answer, which is what the description says, as the question was."""
        assert validator(f"{kind}Documents").is_valid(body)
        answer = await self.ask(act, body, **how)
        assert answer.status == 200, answer.body
        assert validator("Documents" if kind == "Pull" else "PushedDocuments").is_valid(answer.json())
        return answer.json()

    async def pull(self, checkpoint: Any = None, *, store: str = "tasks", who: str = "ada", **more: Any) -> Any:
        scope = SCOPED if store == "tasks" else ""
        body = {"checkpoint": checkpoint, **more}
        return await self.told("Pull", "pull", body, store=store, scope=scope, who=who)

    async def push(self, *rows: tuple[Any, Any], store: str = "tasks", who: str = "ada") -> Any:
        """Push pairs of what was assumed and what is wanted."""
        body = {"rows": [{"assumedMasterState": assumed, "newDocumentState": new} for assumed, new in rows]}
        scope = SCOPED if store == "tasks" else ""
        return await self.told("Push", "push", body, store=store, scope=scope, who=who)

    async def everything(self, *, store: str = "tasks", who: str = "ada", limit: int = 100) -> dict[str, Any]:
        """What a client that begins anew comes to have."""
        return await self.replica({}, None, store=store, who=who, limit=limit)

    async def replica(
        self, has: dict[str, Any], checkpoint: Any, *, store: str = "tasks", who: str = "ada", limit: int = 100
    ) -> dict[str, Any]:
        more = True
        while more:
            page = await self.pull(checkpoint, store=store, who=who, limit=limit)
            apply(has, page["documents"])
            checkpoint, more = page["checkpoint"], page["more"]
        return has


def apply(has: dict[str, Any], documents: Sequence[Any]) -> None:
    for document in documents:
        if document["_deleted"]:
            has.pop(document["id"], None)
        else:
            has[document["id"]] = document


NUMBERED = {"words": {"number": lambda of: of.previous.number if of.previous else of.counter()}}


@asynccontextmanager
async def open_documents(schema: Schema = SCHEMA, **how: Any) -> AsyncGenerator[Site]:
    verifier = StaticTokenVerifier(TOKENS)
    store = SQLiteHubStore(":memory:")
    async with open_hub(
        schema, store, verifier=verifier, rules=Boards(), hub_fields=cast("Any", how.pop("hub_fields", NUMBERED)), **how
    ) as hub:
        async with open_site(cast("Any", hub)) as site:
            yield Site(hub, site.connect(), site.connect)


def task(id: str, title: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "title": title, "board": "main", "_deleted": False, **more}


def whole(id: str, title: str, **more: Any) -> dict[str, Any]:
    """A task as the hub has it."""
    values = {"owner": "ada", "done": False, "lane": "todo", "hours": 0.0, "price": "0.00"}
    return task(id, title, **{**values, **more})


def gone(id: str) -> dict[str, Any]:
    return {"id": id, "_deleted": True}


TAKEN: dict[str, Any] = {"conflicts": [], "refused": []}


async def test_documents_are_typed_and_what_is_missing_is_left_out() -> None:
    async with open_documents() as site:
        rich = {
            "done": True, "lane": "done", "hours": 1.5, "price": "9.50", "note": "x", "tags": ["a", "b"], "photo": "AAH/",
            "due": "2026-01-31T12:00:00.000000Z",
        }  # fmt: skip
        assert await site.push((None, task("1", "tea", **rich)), (None, task("2", "milk"))) == TAKEN
        assert await site.everything() == {"1": whole("1", "tea", **rich), "2": whole("2", "milk")}


async def test_what_a_client_does_not_say_is_as_it_was_and_what_it_takes_out_is_nothing() -> None:
    async with open_documents() as site:
        await site.push((None, task("1", "tea", note="x", hours=2)))
        assert await site.push((task("1", "tea", note="x"), task("1", "milk", note="x"))) == TAKEN
        assert (await site.everything())["1"] == whole("1", "milk", note="x", hours=2.0)
        assert await site.push((task("1", "milk", note="x"), task("1", "milk"))) == TAKEN
        assert (await site.everything())["1"] == whole("1", "milk", hours=2.0)


async def test_a_change_of_another_state_than_the_hubs_is_a_conflict_with_that() -> None:
    async with open_documents() as site:
        await site.push((None, task("1", "tea")))
        assert (await site.push((task("1", "tee"), task("1", "milk"))))["conflicts"] == [whole("1", "tea")]
        assert (await site.push((None, task("1", "milk"))))["conflicts"] == [whole("1", "tea")]
        assert (await site.push((gone("1"), task("1", "milk"))))["conflicts"] == [whole("1", "tea")]
        assert (await site.push((task("1", "tee"), gone("1"))))["conflicts"] == [whole("1", "tea")]
        assert (await site.push((task("2", "tee"), task("2", "milk"))))["conflicts"] == [gone("2")]
        assert (await site.push((task("1", "tea", note="y"), task("1", "milk"))))["conflicts"] == [whole("1", "tea")]
        assert (await site.push((task("1", "tea", hours="much"), task("1", "milk"))))["refused"] == []
        assert await site.everything() == {"1": whole("1", "tea")}


async def test_what_is_pushed_again_is_done_once() -> None:
    async with open_documents() as site:
        first = await site.pull()
        for pair in ((None, task("1", "tea")), (task("1", "tea"), task("1", "milk")), (task("1", "milk"), gone("1"))):
            for _ in range(3):
                assert await site.push(pair) == TAKEN
        ada = site.hub.service(Principal("ada"))
        assert (await ada.pull(PullRequest("main", Cursor(), b"somebody"))).head == 3
        assert (await site.pull(first["checkpoint"]))["documents"] == [gone("1")]
        late = await site.push((None, task("1", "tea")))  # the first copy, much later: it is a new wish by now
        assert late == TAKEN


async def test_each_change_is_taken_or_refused_for_itself() -> None:
    async with open_documents() as site:
        await site.push((None, task("0", "water")))
        told = await site.push(
            (None, task("1", "tea")),
            (None, task("2", "tea")),  # unique
            (None, task("3", "milk", colour="red")),
            (None, task("4", "milk", hours="much")),
            (None, task("5", "juice", board="private")),
            (None, task("x" * 300, "long")),
            (None, {"id": "6", "_deleted": False, "board": "main"}),
            (task("0", "water"), task("0", "water", board="other")),
        )
        assert {each["id"]: each["error"]["code"] for each in told["refused"]} == {
            "2": "CONFLICT", "3": "INVALID", "4": "INVALID", "5": "INVALID", "x" * 300: "INVALID", "6": "INVALID",
            "0": "INVALID",
        }  # fmt: skip
        assert {each["id"]: each["_deleted"] for each in told["conflicts"]} == {
            "2": True, "3": True, "4": True, "5": True, "x" * 300: True, "6": True, "0": False
        }  # fmt: skip
        assert await site.everything() == {"0": whole("0", "water"), "1": whole("1", "tea")}


async def test_a_page_is_filled_whatever_else_is_in_the_scope() -> None:
    async with open_documents() as site:
        for number in range(7):
            await site.push((None, {"id": f"w{number}", "text": "x"}), store="words")
            await site.push((None, task(f"{number}", f"t{number}")))
        page = await site.pull(limit=3)
        assert page["more"] and len(page["documents"]) >= 3
        assert (await site.everything(limit=1)).keys() == {f"{number}" for number in range(7)}
        assert (await site.everything(store="words", limit=2)).keys() == {f"w{number}" for number in range(7)}


async def test_a_checkpoint_goes_on_in_its_store_and_scope_only() -> None:
    async with open_documents() as site:
        await site.push((None, task("1", "tea")))
        checkpoint = (await site.pull())["checkpoint"]
        await site.push((task("1", "tea"), gone("1")), (None, task("2", "milk")))
        page = await site.pull(checkpoint)
        assert sorted(page["documents"], key=lambda each: each["id"]) == [gone("1"), whole("2", "milk")]
        assert (await site.pull(page["checkpoint"]))["documents"] == []
        for answer in (
            await site.ask("pull", {"checkpoint": checkpoint}, scope="?scope=other"),
            await site.ask("pull", {"checkpoint": checkpoint}, store="words", scope=""),
            await site.ask("pull", {"checkpoint": {"at": "AAAA"}}),
            await site.ask("pull", {"checkpoint": {"at": "é"}}),
            await site.ask("pull", {"checkpoint": "AAAA"}),
        ):
            assert (answer.status, answer.code) == (400, "MALFORMED")


@pytest.mark.parametrize("what", ["compaction", "epoch"])
async def test_a_client_that_cannot_go_on_begins_anew_and_ends_equal(what: str) -> None:
    async with open_documents() as site:
        await site.push(*((None, task(f"{number}", f"t{number}")) for number in range(5)))
        page = await site.pull()
        has: dict[str, Any] = {}
        apply(has, page["documents"])
        await site.push((whole("1", "t1"), gone("1")), (whole("2", "t2"), task("2", "new")))
        if what == "compaction":
            await site.hub.compact(keep=0)
        else:
            await site.hub.new_epoch()
        late = await site.ask("pull", {"checkpoint": page["checkpoint"]})
        assert (late.status, late.code) == (409, "RESYNC")
        assert cast("Any", late.json())["error"]["info"]["why"] in ("CURSOR_TOO_OLD", "EPOCH_CHANGED")
        begun = await site.pull(limit=1, have=[*has, "never", "\0"])
        apply(has, begun["documents"])
        assert {each["id"] for each in begun["documents"] if each["_deleted"]} == {"1", "never", "\0"}
        has = await site.replica(has, begun["checkpoint"])
        assert has == await site.everything()
        assert has.keys() == {"0", "2", "3", "4"}


async def test_rules_about_rows_hold_and_a_change_of_them_is_told() -> None:
    owned = {"tasks": lambda caller: (caller.claim("role") == "admin") | (col("owner") == caller.subject)}
    async with open_documents(row_rules=owned) as site:
        await site.push((None, task("1", "tea")))
        await site.push((None, task("2", "milk", owner="bob")), who="bob")
        assert (await site.everything()).keys() == {"1"}
        assert (await site.everything(who="bob")).keys() == {"2"}
        told = await site.push((None, task("1", "mine", owner="bob")), (None, task("3", "his", owner="ada")), who="bob")
        assert [(each["id"], each["error"]["code"]) for each in told["refused"]] == [("1", "DENIED"), ("3", "DENIED")]
        assert told["conflicts"] == [gone("1"), gone("3")]
        checkpoint = (await site.pull(who="bob"))["checkpoint"]
        await site.push((whole("2", "milk", owner="bob"), task("2", "milk", owner="ada")), who="bob")
        assert (await site.everything()).keys() == {"1"}, "a row may not be given away either"
        assert (await site.pull(checkpoint, who="bob"))["documents"] == []
        stolen = await site.ask("pull", {"checkpoint": checkpoint}, who="ada")
        assert stolen.code == "RESYNC", "and a position is of whoever sees the same"
        assert (await site.pull(have=["2"]))["documents"][-1] == gone("2")


async def test_rights_in_scopes_hold() -> None:
    async with open_documents() as site:
        await site.push((None, task("1", "tea")))
        told = await site.push((whole("1", "tea"), gone("1")), (None, task("2", "milk")), who="carl")
        assert {each["error"]["code"] for each in told["refused"]} == {"DENIED"}
        assert told["conflicts"] == [whole("1", "tea"), gone("2")]
        assert await site.push((whole("1", "tea"), whole("1", "tea")), who="carl") == TAKEN, (
            "what is there needs no right"
        )
        rows = {"rows": [{"newDocumentState": task("9", "x", board="private")}]}
        for act, body in (("pull", {}), ("push", rows)):
            answer = await site.ask(act, body, scope="?scope=private", who="bob")
            assert (answer.status, answer.code) == (403, "PERMISSION_DENIED")
        status, _ = await stream_of(site, "private", "bob")
        assert status == 403


async def stream_of(site: Site, scope: str, who: str = "ada", store: str = "tasks") -> tuple[int, Client]:
    client: Client = site.connect()
    await client.send("GET", f"/v1/docs/{store}/stream?scope={scope}", authorization=f"Bearer {who}")
    return (await client.head())[0], client


async def test_what_a_hub_sets_and_what_merges_is_no_conflict() -> None:
    async with open_documents() as site:
        word = {"id": "1", "text": "tea", "votes": 2, "best": 5, "_deleted": False}
        assert await site.push((None, word), store="words") == TAKEN
        (has,) = (await site.everything(store="words")).values()
        assert has["number"] == 1 and has["made"] > "2020" and (has["votes"], has["best"]) == (2, 5)
        changed = {
            **word,
            "text": "milk",
            "votes": 3,
            "best": 4,
            "number": 77,
        }  # from what it sent, not from what it got
        assert await site.push((word, changed), store="words") == TAKEN
        (now,) = (await site.everything(store="words")).values()
        assert now == {**has, "text": "milk", "votes": 3}, "a maximum stays, and a number is nobody's to write"
        assert (await site.push((word, {**word, "votes": 9}), store="words"))["conflicts"] == [now]


async def test_a_text_that_merges_is_written_as_a_text_and_its_state_is_no_conflict() -> None:
    pytest.importorskip("pycrdt", reason="the extra text is not installed")

    @dataclass(frozen=True, kw_only=True)
    class Note:
        id: str
        body: str = ""
        body_state: bytes | None = None

    async with open_documents(Schema(StoreSpec("notes", Note, merge={"body": "text"})), hub_fields={}) as site:
        typed = [{"id": "1", "body": body, "_deleted": False} for body in ("tea", "green tea", "green tea, milk")]
        for before, after in pairwise([None, *typed]):
            assert await site.push((before, after), store="notes") == TAKEN, "from what it sent, not from what it got"
        has = (await site.everything(store="notes"))["1"]
        assert has["body"] == "green tea, milk" and has["body_state"]
        late = {**has, "body": "green tea, milk!", "body_state": "nonsense"}
        assert (await site.push((has, late), store="notes"))["refused"][0]["id"] == "1"
        assert await site.push((has, {**late, "body_state": has["body_state"]}), store="notes") == TAKEN
        assert (await site.everything(store="notes"))["1"]["body"] == "green tea, milk!"


async def test_a_soft_delete_is_a_deletion_and_what_comes_back_is_made() -> None:
    async with open_documents() as site:
        word = {"id": "1", "text": "tea", "_deleted": False}
        await site.push((None, word), store="words")
        checkpoint = (await site.pull(store="words"))["checkpoint"]
        assert await site.push((word, gone("1")), store="words") == TAKEN
        assert (await site.pull(checkpoint, store="words"))["documents"] == [gone("1")]
        assert await site.everything(store="words") == {}
        assert (await site.push((word, {**word, "text": "x"}), store="words"))["conflicts"] == [gone("1")]
        assert await site.push((word, gone("1")), store="words") == TAKEN
        assert await site.push((gone("1"), {**word, "text": "back"}), store="words") == TAKEN
        assert (await site.everything(store="words"))["1"]["text"] == "back"


async def test_a_stream_begins_with_resync_and_goes_on_with_documents() -> None:
    async with open_documents() as site:
        await site.push((None, task("0", "before")))
        status, events = await stream_of(site, "main")
        assert status == 200
        with trio.fail_after(60):
            assert await next_event(events) == ("resync", {})
            await site.push((None, {"id": "w", "text": "x"}), store="words")
            await site.push((None, task("1", "tea")))
            name, told = await next_event(events)
            assert (name, told["documents"]) == ("documents", [whole("1", "tea")])
            await site.push((task("1", "tea"), gone("1")))
            name, told = await next_event(events)
            assert (name, told["documents"]) == ("documents", [gone("1")])
            assert (await site.pull(told["checkpoint"]))["documents"] == []
            await site.hub.new_epoch()
            await site.push((None, task("2", "milk")))
            assert await next_event(events) == ("resync", {})
            await site.push((None, task("3", "juice")))
            assert (await next_event(events))[1]["documents"] == [whole("3", "juice")]


async def next_event(client: Client) -> tuple[str, Any]:
    text = b""
    while not text.strip() or text.strip().startswith(b":"):
        text = await client.read_until(b"\n\n")
        text = b"\n".join([line for line in text.split(b"\n") if line.startswith((b"event", b"data"))])
    fields = dict(line.split(": ", 1) for line in text.decode().splitlines())
    return fields["event"], json.loads(fields["data"])


@pytest.mark.parametrize(
    ("act", "scope", "body", "status"),
    [
        ("pull", "", {}, 400),
        ("pull", "?scope=main&scope=other", {}, 400),
        ("pull", "?scope=main&more=1", {}, 400),
        ("pull", SCOPED, {"limits": 1}, 400),
        ("pull", SCOPED, {"limit": "1"}, 400),
        ("pull", SCOPED, {"have": [1]}, 400),
        ("push", SCOPED, {"rows": [{"newDocumentState": {"title": "x"}}]}, 400),
        ("push", SCOPED, {"rows": [{"newDocumentState": {"id": 1}}]}, 400),
        ("push", SCOPED, {"rows": [{"newDocumentState": {"id": "1"}, "assumedMasterState": {"id": "2"}}]}, 400),
        ("push", SCOPED, {"rows": [{"newDocumentState": gone("1")}] * 2}, 400),
        ("push", SCOPED, [], 400),
        ("drop", SCOPED, {}, 404),
        ("stream", SCOPED, {}, 405),
    ],
)
async def test_what_is_malformed_is_refused_whole(act: str, scope: str, body: object, status: int) -> None:
    async with open_documents() as site:
        assert (await site.ask(act, body, scope=scope)).status == status


async def test_stores_that_do_not_replicate_or_are_none_have_no_documents() -> None:
    async with open_documents() as site:
        asked: list[tuple[str, dict[str, Any]]] = [("pull", {}), ("push", {"rows": []})]
        for act, body in asked:
            assert (await site.ask(act, body, store="logs", scope="")).code == "PERMISSION_DENIED"
            assert (await site.ask(act, body, store="nothing", scope="")).status == 404
            assert (await site.ask(act, body, store="words", scope="?scope=other")).status == 400
            assert (await site.ask(act, body, who="nobody")).status == 401
        answer = await site.client.ask("POST", "/v1/docs/tasks/pull?scope=main", b"{}", content_type="text/plain")
        assert answer.status == 415


async def test_a_row_that_moves_between_the_look_and_the_write_is_looked_at_again() -> None:
    """The hub compares the version once more, so that nobody's change is written over."""
    async with open_documents() as site:
        await site.push((None, task("1", "tea")), (None, task("2", "milk")))

        class Racing(PassingService):
            raced = 0

            async def write(self, request: WriteRequest) -> WriteResult:
                if not self.raced:
                    self.raced = 1
                    theirs = ((whole("1", "tea"), task("1", "theirs")), (whole("2", "milk"), gone("2")))
                    await site.push(*theirs, (None, task("4", "theirs, too")))
                return await super().write(request)

        rows = DocumentStore(
            Racing(site.hub.service(Principal("ada"))), SCHEMA, TASKS, "main", OperationContext("trace")
        )
        pushed = [
            PushedDocument(task("1", "mine"), whole("1", "tea")),
            PushedDocument(task("2", "mine"), whole("2", "milk")),
            PushedDocument(task("3", "new"), None),
            PushedDocument(task("4", "mine, too"), None),
        ]
        told = await push_documents(rows, pushed, Environment())
        there = {"1": whole("1", "theirs"), "4": whole("4", "theirs, too")}
        assert (list(told.conflicts), told.refused) == ([there["1"], gone("2"), there["4"]], ())
        assert await site.everything() == {**there, "3": whole("3", "new")}
