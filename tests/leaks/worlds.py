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
from atoma.contracts.values import RowImage, StoredRow
from atoma.errors import QueryError, RemoteError
from atoma.hub import Access, Caller, Hub, RowRule, StaticTokenVerifier, open_hub
from atoma.ports.service import Principal
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma.schema import Schema, StoreSpec
from atoma.schema.expressions import Condition, col
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters.operations import QUERIES
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
    if isinstance(answer, (tuple, list)):
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
    schema = Schema(*(_apart(spec) if spec.name in rules else spec for spec in SCHEMA.stores.values()))
    rows = random_rows(random, schema, readable, guest, rules)
    async with open_one(schema, readable, rules) as whole, open_one(schema, readable, rules) as alone:
        for hub in (whole, alone):
            await fill(hub, rows.allowed)
        await fill(whole, rows.foreign)
        allowed, every = (_tables(schema, side) for side in ((rows.allowed,), (rows.allowed, rows.foreign)))
        yield World(guest, whole, alone, allowed, every, schema)


def _apart(spec: StoreSpec[Any]) -> StoreSpec[Any]:
    return StoreSpec(
        spec.name, spec.model, scope=spec.scope_field or spec.fixed_scope, indexes=spec.indexes, replicate=False
    )


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
