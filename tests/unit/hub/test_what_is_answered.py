"""What a hub answers, over every transport: rows that its caller may see, whatever the plan; and what it does not answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from atoma.contracts.execution import OperationContext, QueryRequest, QueryResult
from atoma.contracts.mutations import Op
from atoma.contracts.query import (
    Agg,
    BoundQuery,
    Branch,
    Call,
    Col,
    Derived,
    Exists,
    Include,
    Join,
    Lit,
    Named,
    Order,
    Plan,
    Seek,
    Store,
)
from atoma.contracts.query import Scalar as ScalarOf
from atoma.contracts.values import Scalar, StoredRow
from atoma.errors import RemoteError
from atoma.hub import Access, StaticTokenVerifier, open_hub
from atoma.ports import Transport
from atoma.ports.service import Principal, SyncService
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma.query.plans import number_of
from atoma.testing.queries import count_of
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.adapters import ServiceProxy
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.unit.hub.kit import SCHEMA, card, direct
from tests.unit.hub.test_direct import insert

CARD, SEAT = Store("cards"), Store("seats")
ID, TITLE = Col(0, "id"), Col(0, "title")
SAME = Call("eq", (Col(0, "board"), Col(1, "board")))
OUTER = Call("eq", (Col(0, "board"), Col(-1, "board")))
COUNT = (Named("n", Agg("count")),)
NUMBER = ScalarOf(Plan(SEAT, where=OUTER, columns=COUNT))

HIDDEN = Store("cards", hidden=True)
REFUSED: dict[str, Plan] = {
    "rows that were deleted softly": Plan(Store("cards", hidden=True)),
    "their number": Plan(Store("cards", hidden=True), columns=COUNT),
    "one of them by its id": Plan(Store("cards", hidden=True), where=Call("eq", (ID, Lit("text", "red-0")))),
    "whether there is such a row": Plan(CARD, where=Exists(Plan(Store("seats", hidden=True), where=OUTER))),
    "a join with them": Plan(CARD, joins=(Join("left", HIDDEN, SAME),)),
    "a table made of them": Plan(Derived(Plan(HIDDEN, columns=COUNT)), columns=COUNT),
    "rows that have them": Plan(
        CARD, include=(Include("them", False, (("id", "id"),), (Branch(None, Plan(HIDDEN)),)),)
    ),
}
ANSWERED: dict[str, Plan] = {
    "a join": Plan(CARD, joins=(Join("inner", SEAT, SAME),)),
    "a join with itself": Plan(CARD, joins=(Join("left", CARD, SAME),)),
    "a join across scopes": Plan(CARD, joins=(Join("inner", SEAT, Lit("bool", True), cross_scope=True),)),
    "columns of a join": Plan(CARD, joins=(Join("inner", SEAT, SAME),), columns=(Named("p", Col(1, "place")),)),
    "a count of a join": Plan(CARD, joins=(Join("inner", SEAT, SAME),), columns=COUNT),
    "columns": Plan(CARD, columns=(Named("title", TITLE),)),
    "distinct columns": Plan(CARD, columns=(Named("title", TITLE),), distinct=True),
    "groups": Plan(CARD, group=(TITLE,), columns=(Named("title", TITLE), *COUNT)),
    "counts of groups": Plan(CARD, group=(TITLE,), columns=COUNT),
    "a count that has something": Plan(CARD, columns=COUNT, having=Call("gt", (Agg("count"), Lit("int", 1)))),
    "another aggregate": Plan(CARD, columns=(Named("last", Agg("max", TITLE)),)),
    "two counts": Plan(CARD, columns=(*COUNT, Named("m", Agg("count")))),
    "a count of some": Plan(CARD, columns=(Named("n", Agg("count", where=Exists(Plan(SEAT, where=OUTER)))),)),
    "rows where others exist": Plan(CARD, where=Exists(Plan(SEAT, where=OUTER))),
    "rows where none exist": Plan(CARD, where=Call("not", (Exists(Plan(SEAT), negated=True),))),
    "a count where others exist": Plan(CARD, where=Exists(Plan(SEAT, where=OUTER)), columns=COUNT),
    "rows by the number of others": Plan(CARD, where=Call("gt", (NUMBER, Lit("int", 0)))),
    "an order by the number of others": Plan(CARD, order=(Order(NUMBER),)),
    "a subquery beside the rows' own scope": Plan(CARD, where=Exists(Plan(CARD, where=Call("eq", (ID, Lit("text", "1")))))),
    "an include": Plan(CARD, include=(Include("seats", False, (("board", "board"),), (Branch(None, Plan(SEAT)),)),)),
    "a derived table alone": Plan(Derived(Plan(CARD, columns=(Named("title", TITLE),))), columns=(Named("t", Col(0, "c0")),)),
    "a count of a derived table": Plan(Derived(Plan(CARD, columns=(Named("title", TITLE),))), columns=COUNT),
    "a join with a derived table": Plan(
        CARD,
        joins=(Join("inner", Derived(Plan(SEAT, columns=(Named("b", Col(0, "board")),))), Call("eq", (Col(0, "board"), Col(1, "c0")))),),
        columns=(Named("id", ID),),
    ),
}  # fmt: skip


class OneBoard:
    """The owner sees every board, bob the blue one."""

    def scope_access(self, principal: Principal, scope: str) -> Access:
        return "write" if principal.subject == "owner" or scope == "blue" else "none"


@asynccontextmanager
async def asked_over(wire: str) -> AsyncGenerator[SyncService]:
    """A hub with two cards on each of two boards, asked over a wire by somebody who may see one of them."""
    verifier = StaticTokenVerifier({"t": "bob"})
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=verifier, rules=OneBoard()) as hub:
        owner = hub.service(Principal("owner"))
        entries = [insert(f"{board}-{number}", "x", board=board) for board in ("red", "blue") for number in range(2)]
        seats = [Op("create", "seats", "s", {"place": "window", "board": board}) for board in ("red", "blue")]
        assert (await owner.write(direct(*entries, *seats, idem="k"))).status == "confirmed"
        if wire == "in place":
            yield hub.service(Principal("bob"))
            return
        network = MemoryNetwork()
        async with network.listen(hub), open_server(hub, "127.0.0.1:0") as address:
            roads: dict[str, Transport] = {
                "memory": MemoryTransport(network, token="t"),
                "websocket": WebSocketTransport(f"ws://{address}/sync", token="t"),
                "grpc": GrpcTransport(f"grpc://{address}", token="t"),
                "http": HttpTransport(f"http://{address}", token="t"),
            }
            async with roads[wire].connect() as channel:
                yield ServiceProxy(channel)


async def ask(service: SyncService, query: BoundQuery) -> QueryResult:
    return await service.query(QueryRequest(query, OperationContext("trace")))


def known(store: str, ids: Sequence[str], **values: Scalar) -> list[StoredRow]:
    return [StoredRow(id, 1, 1, "blue", {**values, "board": "blue"}) for id in ids]


BLUE = {
    "cards": known("cards", ["blue-0", "blue-1"], **card("x")),
    "seats": known("seats", ["s"], place="window"),
}


def plain(answer: object) -> object:
    if isinstance(answer, StoredRow):
        return answer.id, answer.scope, answer.image
    if isinstance(answer, (tuple, list)):
        return [plain(each) for each in cast("Sequence[object]", answer)]
    return answer


@pytest.mark.parametrize("wire", ["in place", "memory", "websocket", "grpc", "http"])
async def test_every_plan_is_answered_from_the_rows_that_may_be_seen(wire: str) -> None:
    scoped = frozenset(("cards", "seats"))
    async with asked_over(wire) as service:
        for name, plan in ANSWERED.items():
            query = bind(plan, SCHEMA.store)
            result = await ask(service, query)
            assert plain(result.rows or result.tuples) == plain(evaluate(query, BLUE, scoped=scoped)), name
            assert result.meta.source == "remote"
        assert number_of(await ask(service, count_of("cards"))) == 2


@pytest.mark.parametrize("wire", ["in place", "memory", "websocket", "grpc", "http"])
async def test_rows_that_were_deleted_softly_are_shown_to_nobody(wire: str) -> None:
    async with asked_over(wire) as service:
        for name, plan in REFUSED.items():
            with pytest.raises(RemoteError) as refused:
                await ask(service, BoundQuery(plan))
            assert refused.value.remote_code == "UNSUPPORTED", (name, refused.value)


MISMADE: dict[str, tuple[BoundQuery, str]] = {
    "a value of a type that there is not": (
        BoundQuery(Plan(CARD, where=Call("eq", (Lit("rowid", "a"), Lit("rowid", "a"))))),
        "unknown type 'rowid'; there are: text, int",
    ),
    "a column that only the database knows": (
        BoundQuery(Plan(CARD, where=Call("eq", (Col(0, "_scope"), Lit("text", "red"))))),
        "store 'cards' has no field '_scope'",
    ),
    "a page of a count": (BoundQuery(Plan(CARD, columns=COUNT, seek=Seek(()))), "a query with one row has no pages"),
}


@pytest.mark.parametrize("wire", ["in place", "memory", "http"])
async def test_what_is_no_query_is_refused(wire: str) -> None:
    async with asked_over(wire) as service:
        for name, (query, words) in MISMADE.items():
            with pytest.raises(RemoteError, match=words) as refused:
                await ask(service, query)
            assert refused.value.remote_code == "QUERY", (name, refused.value)
        with pytest.raises(RemoteError) as told:
            await ask(service, BoundQuery(Plan(CARD, where=Call("eq", (Col(0, "titel"), Lit("text", "a"))))))
        assert told.value.info == {"path": "where › eq", "hint": "did you mean title?"}
