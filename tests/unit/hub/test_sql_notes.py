"""What the listener of a hub is told of the SQL of calls."""

from __future__ import annotations

import time

from atoma import col, select
from atoma.contracts.events import CallServed, HubEvent
from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.mutations import Op
from atoma.hub import AllowLoopback, open_hub
from atoma.ports.hub_sql import BATCHES_MAX, NOTES, SqlNotes
from atoma.query.binding import asked
from tests.unit.hub.homes import Home, SQLiteHome
from tests.unit.hub.kit import CARDS, SCHEMA, Client, card, direct
from tests.unit.hub.test_groups import a_database, client, pushed, written


async def test_every_call_tells_its_sql_and_no_value(home: Home) -> None:
    heard: list[CallServed] = []

    def hear(event: HubEvent) -> None:
        assert isinstance(event, CallServed)
        heard.append(event)

    async with open_hub(SCHEMA, home.store(), verifier=AllowLoopback(), listener=hear) as hub:
        of = Client.of(hub, "c1")
        of.write(Op("create", "cards", "a", card("secret")))
        await of.push()
        await of.service.write(direct(Op("create", "cards", "b", card("secret")), idem="k" * 20))
        for query in (select(CARDS), select(CARDS).where(col("id") == "a")):
            await of.service.query(QueryRequest(asked(query, SCHEMA).query, OperationContext("")))
        await of.pull()
    on_file = isinstance(home, SQLiteHome)
    group = ["write", "write", "commit"] if on_file else ["write", "write"]  # on PostgreSQL it goes with the effects
    told = {event.method: [batch.kind for batch in event.batches] for event in heard}
    assert told["push"] == group
    assert told["write"] == ["read", *group]  # first where the row is
    assert set(told["query"]) == set(told["pull"]) == {"read"}
    for event in heard:
        assert event.left_out == 0
        for batch in event.batches:
            assert (batch.system, batch.calls) == ("sqlite" if on_file else "postgresql", 1)
            assert batch.statements >= 1
            assert 0 <= batch.after <= batch.after + batch.seconds <= event.seconds
    assert "secret" not in repr(heard)


async def test_a_batch_is_told_to_all_whose_decisions_are_in_it() -> None:
    asking, other = client("a"), client("b")
    asking.write(Op("create", "cards", "1", card("t")))
    other.write(Op("create", "cards", "2", card("t")))
    quiet = await pushed(other)
    notes = SqlNotes(time.perf_counter)
    before = NOTES.set(notes)
    try:
        runs = [await pushed(asking), quiet]
    finally:
        NOTES.reset(before)
    assert quiet.notes is None
    with a_database() as connection:
        written(connection, *runs)
    assert [(batch.kind, batch.calls) for batch in notes.batches] == [("write", 2), ("write", 2)]


async def test_only_the_first_batches_of_a_call_are_told() -> None:
    of = client("a")
    for number in range(BATCHES_MAX):
        of.write(Op("create", "seats", f"{number}", {"place": "1"}))  # all but the first are refused, so one at a time
    notes = SqlNotes(time.perf_counter)
    before = NOTES.set(notes)
    try:
        run = await pushed(of)
    finally:
        NOTES.reset(before)
    with a_database() as connection:
        written(connection, run)
    assert len(notes.batches) == BATCHES_MAX
    assert notes.left_out > 0
