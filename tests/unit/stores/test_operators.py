"""An operator that nobody knows is refused at every door, with a typed error."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from atoma import AllowLoopback, Environment, Schema, StoreSpec, open_hub
from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.query import Agg, BoundQuery, Call, Col, Lit, Named, Plan, Store
from atoma.errors import QueryError, RemoteError
from atoma.ports.service import Principal
from atoma.query.normal import rebind
from atoma_stores.live.dispatch import open_live_queries
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.protocol.plans import decode_query, encode_query
from tests.paths import memory


@dataclass(frozen=True)
class Note:
    id: str
    rank: int = 0


SCHEMA = Schema(StoreSpec("notes", Note))
RANK = Col(0, "rank")
UNKNOWN = {
    "operator": BoundQuery(Plan(Store("notes"), where=Call("between", (RANK, Lit("int", 1))))),
    "aggregate": BoundQuery(Plan(Store("notes"), columns=(Named("middle", Agg("between", RANK)),))),
}
"""Neither is in the table of functions: ``between()`` of the builder is two comparisons."""


@pytest.mark.paths
@pytest.mark.parametrize("what", UNKNOWN)
async def test_the_engine_and_its_live_queries_refuse_it(what: str) -> None:
    async with SQLiteEngine(memory()).open_database(SCHEMA, Environment(executor="inline"), frozenset()) as database:
        with pytest.raises(QueryError, match=f"unknown {what} 'between'"):
            await database.read(UNKNOWN[what])
        async with open_live_queries(database, SCHEMA) as live:
            with pytest.raises(QueryError, match=f"unknown {what} 'between'"):
                async with live.open_live(UNKNOWN[what]):
                    pytest.fail("it must not open")


@pytest.mark.parametrize("what", UNKNOWN)
def test_the_check_refuses_it_before_anything_evaluates_it(what: str) -> None:
    with pytest.raises(QueryError, match=f"unknown {what} 'between'"):
        rebind(UNKNOWN[what], SCHEMA.store)


@pytest.mark.parametrize("what", UNKNOWN)
async def test_a_hub_refuses_it_when_it_comes_in_over_the_wire(what: str) -> None:
    sent = decode_query(encode_query(UNKNOWN[what]))
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub:
        with pytest.raises(RemoteError, match=f"unknown {what} 'between'") as refused:
            await hub.service(Principal("ada")).query(QueryRequest(sent, OperationContext("t")))
    assert refused.value.remote_code == "QUERY"
