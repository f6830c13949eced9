"""Hubs with rows that somebody may not see, and the same hubs without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

import msgspec

from atoma.contracts.execution import OperationContext, QueryRequest, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.contracts.query import BoundQuery, Plan
from atoma.contracts.sync import Cursor, PullRequest, SnapshotRequest, StoreChanges
from atoma.contracts.values import RowImage, StoredRow, TableRows
from atoma.errors import QueryError, RemoteError
from atoma.hub import Access, AllowLoopback, Caller, Hub, RowRule, StaticTokenVerifier, open_hub
from atoma.ports import LocalTx, seeded_environment
from atoma.ports.engine import LocalDatabase
from atoma.ports.service import Principal, SyncService
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma.schema import Schema
from atoma.schema.expressions import Condition, col
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters.operations import QUERIES
from atoma_transports.http.documents import reading
from atoma_transports.http.documents.messages import PullDocuments
from atoma_transports.http.documents.pulling import pull_documents
from atoma_transports.http.documents.rows import left_out, stated
from tests.leaks.plans import BOARDS, PEOPLE, SCHEMA, VALUES, PlanMaker

CONTEXT = OperationContext("trace")
EVERYBODY = "everybody"
OWNER = Principal("owner", {"role": "admin"})
May: TypeAlias = Callable[[Principal, Mapping[str, Any]], bool]


def _admin(caller: Caller) -> Condition:
    return caller.claim("role") == "admin"


RULES: Mapping[str, RowRule] = {
    "cards": lambda caller: _admin(caller) | (col("lane") == caller.claim("lane")) | (col("size") < 2),
    "remarks": lambda caller: _admin(caller) | (col("author") == caller.subject) | (col("stars") >= 2),
    "labels": lambda caller: _admin(caller) | (col("word") != caller.claim("word")),
}
MAY: Mapping[str, May] = {
    "cards": lambda guest, row: (
        row["size"] < 2 or (row["lane"] is not None and row["lane"] == guest.claims.get("lane"))
    ),
    "remarks": lambda guest, row: row["author"] == guest.subject or (row["stars"] is not None and row["stars"] >= 2),
    "labels": lambda guest, row: "word" in guest.claims and row["word"] != guest.claims["word"],
}
"""What :data:`RULES` say, in words of their own."""


@dataclass(frozen=True)
class Readable:
    """The rules of a world: the owner may write everything, its guest reads some scopes."""

    scopes: frozenset[str]

    def scope_access(self, principal: Principal, scope: str) -> Access:
        if principal.subject == OWNER.subject:
            return "write"
        return "read" if scope in self.scopes else "none"


@dataclass(frozen=True)
class Rows:
    """Rows by store, those that the guest may see apart from the others."""

    allowed: Mapping[str, Sequence[tuple[str, RowImage]]]
    foreign: Mapping[str, Sequence[tuple[str, RowImage]]]


@dataclass
class Seen:
    """What a run has met, so that one that shows nothing is noticed."""

    counts: Counter[str] = field(default_factory=Counter[str])

    def share(self, part: str, of: str = "asked") -> float:
        """How many of those were these."""
        return self.counts[part] / max(1, self.counts[of])


class Leak(AssertionError):
    """An answer is none over the rows that its caller may see."""


@dataclass(frozen=True)
class World:
    """Two hubs, one with foreign rows and one without, and the guest who asks both."""

    guest: Principal
    whole: Hub
    alone: Hub
    allowed: Mapping[str, Sequence[StoredRow]]
    every: Mapping[str, Sequence[StoredRow]]
    schema: Schema

    async def check(self, plan: Plan, seen: Seen) -> None:
        """Ask both hubs, and compare with each other and with the meaning of ``plan`` over the allowed rows.

        Raises:
            Leak: They differ.
        """
        try:
            query = bind(plan, self.schema.store)
        except QueryError:
            seen.counts["not made"] += 1
            return
        seen.counts["asked"] += 1
        answers = [await self._ask(hub, query) for hub in (self.whole, self.alone)]
        if answers[0] != answers[1]:
            raise Leak(f"foreign rows show: {plan}\n{answers[0]!r}\n{answers[1]!r}")
        if isinstance(answers[0], str):
            seen.counts[answers[0]] += 1
            return
        scoped = frozenset(name for name, store in self.schema.stores.items() if store.scope_field)
        expected = evaluate(query, self.allowed, scoped=scoped)
        result = msgspec.msgpack.decode(answers[0])
        if plain(expected) != result["answer"]:
            raise Leak(f"not the meaning over what may be seen: {plan}\n{result['answer']}\n{plain(expected)}")
        seen.counts["answered"] += 1
        seen.counts["not empty"] += bool(expected)
        if seen.counts["asked"] % 4 == 0:
            seen.counts["compared"] += 1
            seen.counts["fenced"] += plain(evaluate(query, self.every, scoped=scoped)) != plain(expected)

    async def check_sync(self, seen: Seen) -> None:
        """Follow every scope in the name of the guest, by pages, a snapshot and documents, and compare with the allowed rows.

        Raises:
            Leak: It has others, or something else tells of them.
        """
        for scope in (*BOARDS, EVERYBODY):
            for follow in (pulled, scanned, self._documents):
                answers = [await follow(hub.service(self.guest), scope) for hub in (self.whole, self.alone)]
                if answers[0] != answers[1]:
                    raise Leak(f"foreign rows show in {scope}: {answers}")
                wanted = {
                    (name, row.id): dict(row.image)
                    for name, rows in self.allowed.items()
                    for row in rows
                    if row.scope == scope
                }
                if answers[0] not in (wanted, "PERMISSION_DENIED" if not wanted else None):
                    raise Leak(f"not what may be seen in {scope}: {answers[0]}, {wanted}")
                seen.counts["followed"] += 1
                seen.counts["refused" if answers[0] == "PERMISSION_DENIED" else "not empty"] += bool(answers[0])

    async def _documents(self, service: SyncService, scope: str) -> Replica | str:
        """What a client of documents comes to have of a scope, a few at a time; or the code of the error."""
        replica: Replica = {}
        for spec in self.schema.stores.values():
            if spec.scope_field is None and spec.fixed_scope != scope:
                continue
            rows = reading.DocumentStore(service, self.schema, spec, scope, CONTEXT)
            asked, more = PullDocuments(limit=3), True
            while more:
                try:
                    page = await pull_documents(rows, asked)
                except RemoteError as error:
                    return error.remote_code
                for document in msgspec.json.decode(msgspec.json.encode(page.documents)):
                    if document["_deleted"]:
                        raise Leak(f"nothing was deleted: {document}")
                    replica[spec.name, document["id"]] = {**left_out(spec, document), **stated(spec, document)}
                asked, more = msgspec.structs.replace(asked, checkpoint=page.checkpoint), page.more
        return replica

    async def _ask(self, hub: Hub, query: BoundQuery) -> bytes | str:
        """Every byte of the answer, versions and order included; or the code of the error."""
        request = QueryRequest(query, CONTEXT)
        try:
            result = await hub.service(self.guest).query(request)
        except RemoteError as error:
            return error.remote_code
        told = QUERIES.to_reply(request, result)
        return msgspec.msgpack.encode({"reply": told, "answer": plain(result.rows or result.tuples)})


def plain(answer: Any) -> Any:
    """Rows by what they hold and where, as lists."""
    if isinstance(answer, StoredRow):
        return [answer.id, answer.scope, dict(answer.image)]
    if isinstance(answer, (tuple, list, TableRows)):
        return [plain(each) for each in answer]  # pyright: ignore[reportUnknownVariableType]
    return answer


def random_row(random: Random, schema: Schema, store: str, scope: str) -> RowImage:
    """Values of a row."""
    spec = schema.store(store)
    image: RowImage = {}
    for name in spec.value_columns:
        value: Any = random.choice(VALUES[name])
        missing = spec.fields[name].nullable and random.random() < 0.25
        image[name] = scope if name == spec.scope_field else None if missing else value
    return image


Tables: TypeAlias = Mapping[str, Sequence[tuple[str, str, RowImage]]]
"""Rows by store: of each its id, its scope and its values."""


def random_tables(random: Random, rows: int) -> Tables:
    """So many rows of every store; no id is in two scopes, as on a device."""
    tables: dict[str, list[tuple[str, str, RowImage]]] = {}
    for name, spec in SCHEMA.stores.items():
        for id in PEOPLE if name == "people" else [f"x{number}" for number in range(rows)]:
            scope = random.choice(BOARDS[:2]) if spec.scope_field else EVERYBODY
            tables.setdefault(name, []).append((id, scope, random_row(random, SCHEMA, name, scope)))
    return tables


@asynccontextmanager
async def open_device_and_hub(schema: Schema, tables: Tables) -> AsyncIterator[tuple[LocalDatabase, SyncService]]:
    """A device, and a hub as one sees it who may see every row; both have the rows of ``tables``."""

    def put(tx: LocalTx) -> None:
        for name, of in tables.items():
            for id, scope, image in of:
                tx.base.put_many(name, scope, [(id, image, 1)])

    async with (
        SQLiteEngine(":memory:").open_database(schema, seeded_environment(1), frozenset()) as device,
        open_hub(schema, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub,
    ):
        await device.apply(put)
        await fill(hub, {name: [(id, image) for id, _, image in of] for name, of in tables.items()})
        yield device, hub.service(Principal("ann"))


def random_rows(
    random: Random, schema: Schema, readable: frozenset[str], guest: Principal, rules: Collection[str]
) -> Rows:
    """Rows of every store in every scope; the same ids in all of them."""
    allowed: dict[str, list[tuple[str, RowImage]]] = {}
    foreign: dict[str, list[tuple[str, RowImage]]] = {}
    for name, spec in schema.stores.items():
        for scope in BOARDS if spec.scope_field else (spec.fixed_scope,):
            ids = PEOPLE if name == "people" else [f"x{number}" for number in range(4)]
            for id in ids:
                if random.random() < 0.9:
                    image = random_row(random, schema, name, scope)
                    may = scope in readable and (name not in rules or MAY[name](guest, image))
                    (allowed if may else foreign).setdefault(name, []).append((id, image))
    return Rows(allowed, foreign)


@asynccontextmanager
async def open_world(seed: int) -> AsyncIterator[World]:
    """A world of chance; every second one has rules about rows."""
    random = Random(seed)
    boards = random.sample(BOARDS, random.choice((1, 1, 2, 2, 2)))
    readable = frozenset((*boards, *([EVERYBODY] if random.random() < 0.9 else ())))
    claims = {name: random.choice(VALUES[name]) for name in ("lane", "word") if random.random() < 0.7}
    guest = Principal(random.choice(PEOPLE), {name: str(value) for name, value in claims.items()})
    rules = RULES if seed % 2 else {}
    rows = random_rows(random, SCHEMA, readable, guest, rules)
    async with open_one(SCHEMA, readable, rules) as whole, open_one(SCHEMA, readable, rules) as alone:
        for hub in (whole, alone):
            await fill(hub, rows.allowed)
        await fill(whole, rows.foreign)
        allowed, every = (_tables(SCHEMA, side) for side in ((rows.allowed,), (rows.allowed, rows.foreign)))
        yield World(guest, whole, alone, allowed, every, SCHEMA)


@asynccontextmanager
async def open_one(schema: Schema, readable: frozenset[str], rules: Mapping[str, RowRule]) -> AsyncIterator[Hub]:
    """A hub without rows."""
    store, verifier = SQLiteHubStore(":memory:"), StaticTokenVerifier({"t": "guest"})
    async with open_hub(schema, store, verifier=verifier, rules=Readable(readable), row_rules=rules) as hub:
        yield hub


async def fill(hub: Hub, rows: Mapping[str, Sequence[tuple[str, RowImage]]]) -> None:
    """Write ``rows`` as the owner."""
    service = hub.service(OWNER)
    for store, found in rows.items():
        entries = tuple(Op("create", store, id, image) for id, image in found)
        result = await service.write(
            WriteRequest(entries, WriteOptions(), CONTEXT, f"{store} {len(found)} {id(found)}")
        )
        assert result.status == "confirmed", [item.error for item in result.items if item.error]


def _tables(
    schema: Schema, sides: Sequence[Mapping[str, Sequence[tuple[str, RowImage]]]]
) -> Mapping[str, list[StoredRow]]:
    tables: dict[str, list[StoredRow]] = {}
    for name, spec in schema.stores.items():
        rows = [row for side in sides for row in side.get(name, ())]
        field = spec.scope_field
        made = [StoredRow(id, 1, 1, str(image[field]) if field else spec.fixed_scope, image) for id, image in rows]
        tables[name] = sorted(made, key=lambda row: (row.scope, row.id))
    return tables


Replica: TypeAlias = dict[tuple[str, str], dict[str, Any]]


async def pulled(service: SyncService, scope: str) -> Replica | str:
    """What the log of a scope makes of an empty device, some changes at a time; or the code of the error.

    Raises:
        Leak: Something is said to be gone that was never there.
    """
    replica: Replica = {}
    request = PullRequest(scope, Cursor(), b"file-of-the-guest", max_changes=7)
    more = True
    while more:
        try:
            page = await service.pull(request)
        except RemoteError as error:
            return error.remote_code
        for part in page.stores:
            replica |= _rows_of(part)
            if part.deletes:
                raise Leak(f"nothing was deleted: {part.deletes}")
        request, more = msgspec.structs.replace(request, cursor=page.end), page.more
    return replica


async def scanned(service: SyncService, scope: str) -> Replica | str:
    """What a snapshot of a scope has, some rows at a time; or the code of the error.

    Raises:
        Leak: A token names a row that is in no page.
    """
    replica: Replica = {}
    request = SnapshotRequest(scope, b"file-of-the-guest", max_rows=5)
    done = False
    while not done:
        try:
            page = await service.snapshot(request)
        except RemoteError as error:
            return error.remote_code
        found: Replica = {}
        for part in page.stores:
            found |= _rows_of(part)
        if not page.done and len(found) < 5:
            raise Leak(f"a page of {len(found)} rows has passed over others")
        replica |= found
        request, done = msgspec.structs.replace(request, token=page.token), page.done
    return replica


def _rows_of(part: StoreChanges) -> Replica:
    return {(part.store, str(id)): dict(zip(part.columns[1:], values, strict=True)) for _, id, *values in part.rows}


async def follow(first: int, worlds: int) -> Seen:
    """Let a device follow so many worlds.

    Raises:
        Leak: With the seed of its world.
    """
    seen = Seen()
    for seed in range(first, first + worlds):
        async with open_world(seed) as world:
            try:
                await world.check_sync(seen)
            except Leak as leak:
                raise Leak(f"world {seed}: {leak}") from None
    return seen


async def campaign(first: int, worlds: int, plans: int) -> Seen:
    """Ask so many plans in each of so many worlds.

    Raises:
        Leak: With the seed of its world.
    """
    seen = Seen()
    for seed in range(first, first + worlds):
        maker = PlanMaker(Random(seed))
        async with open_world(seed) as world:
            for number in range(plans):
                try:
                    await world.check(maker.plan(), seen)
                except Leak as leak:
                    raise Leak(f"world {seed}, plan {number}: {leak}") from None
    return seen
