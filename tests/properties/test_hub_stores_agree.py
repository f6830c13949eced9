"""The same random steps on a file and on PostgreSQL come to the same answers, rows, log, hashes, outcomes and tombstones."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, event, example, given, settings

from atoma.contracts.mutations import Op, OpKind
from atoma.errors import RemoteError
from atoma.ports import seeded_environment
from atoma_stores.sql.dialect import SQLITE
from atoma_stores.sql.hub.rows import stores_of
from tests.unit.hub.homes import Found, Home, home_of
from tests.unit.hub.kit import SCHEMA, Client, card, direct, hub_on, pull_all
from tests.unit.hub.truth import check_truth, rows_of_store

pytest.importorskip("psycopg", reason="the extra postgres is not installed")

Step: TypeAlias = tuple[Any, ...]
KINDS: tuple[OpKind, ...] = ("create", "patch", "upsert", "replace", "delete")
IDS = st.sampled_from(["1", "2", "é"])
SCOPES = st.sampled_from(["main", "other"])
PLACES = st.sampled_from(["window", "aisle", "door"])
TABLES = {
    "scope": "SELECT scope, head, head_hash, floor, floor_hash FROM {scope} ORDER BY scope",
    "tx": "SELECT t.scope, t.seq, t.hash, coalesce(c.client_id, {nobody}), t.mid, t.principal, t.n, t.bytes FROM {tx} t "
    "LEFT JOIN {client} c ON c.number=t.author ORDER BY t.scope, t.seq",
    "change": "SELECT scope, seq, idx, store, id, fields, pre, post FROM {change} ORDER BY scope, seq, idx",
    "tombstone": "SELECT scope, store, id, seq, last, other_seq FROM {tombstone} ORDER BY scope, store, id",
    "client": "SELECT client_id, incarnation, principal, last_mid, last_digest, confirmed_mid FROM {client} ORDER BY client_id",
    "outcome": "SELECT c.client_id, o.mid, o.status, o.scope, o.seq, o.digest, o.detail FROM {outcome} o "
    "JOIN {client} c ON c.number=o.client ORDER BY c.client_id, o.mid",
    "idem": "SELECT principal, idem, outcome FROM {idem} ORDER BY principal, idem",
    "spent": "SELECT key FROM {spent} ORDER BY key",
    "epoch": "SELECT e.devices, e.deletes, e.unproven FROM {epoch} e ORDER BY e.number",
    "epoch_end": "SELECT d.scope, d.head, e.devices FROM {epoch_end} d JOIN {epoch} e ON e.number=d.epoch ORDER BY e.number, d.scope",
}


@st.composite
def ops(draw: st.DrawFn) -> Op:
    store = draw(st.sampled_from(["cards", "kept", "mine", "hands", "seats"]))
    kind, id = draw(st.sampled_from(KINDS)), draw(IDS)
    if kind == "delete":
        return Op("delete", store, id)
    if store == "seats":
        return Op(kind, store, id, {"place": draw(PLACES)})
    title, rank = draw(st.sampled_from(["a", "b"])), draw(st.sampled_from([0.0, 1.5]))
    return Op(kind, store, id, {"title": title} if kind == "patch" else card(title, rank=rank))


PUSHES = st.tuples(
    st.just("push"),
    st.sampled_from("ab"),
    SCOPES,
    st.integers(0, 6),
    st.lists(st.lists(ops(), min_size=1, max_size=3), min_size=1, max_size=3),
)
STEPS = st.one_of(
    PUSHES,
    PUSHES,
    PUSHES,
    st.tuples(st.just("again"), st.sampled_from("ab")),
    st.tuples(
        st.just("write"),
        SCOPES,
        st.lists(ops(), min_size=1, max_size=3),
        st.booleans(),
        st.sampled_from(["k1", "k2", "k3"]),
    ),
    st.tuples(st.just("compact"), st.integers(0, 3), st.sampled_from([-1, 1])),
    st.tuples(st.just("epoch"), st.sampled_from(["offer", "forget"])),
)


class Numbered(random.Random):
    """Gives epochs in order: who else draws in between differs from store to store."""

    drawn = 0

    def randbytes(self, n: int) -> bytes:
        self.drawn += n == 16
        return self.drawn.to_bytes(n, "big")


def scoped(op: Op, scope: str) -> Op:
    """A direct write says the scope itself."""
    values = {**op.values, "board": scope} if op.kind in ("create", "replace", "upsert") else op.values
    return Op(op.kind, op.store, op.id, values, scope=scope)


async def answers(home: Home, steps: Sequence[Step]) -> list[object]:
    """What a hub in ``home`` says to each step."""
    said: list[object] = []
    async with hub_on(home.store(), environment=replace(seeded_environment(1), random=Numbered())) as hub:
        clients = {name: Client.of(hub, name) for name in "ab"}
        for step in steps:
            try:
                said.append(await one(hub, clients, step))
            except RemoteError as error:
                said.append((error.remote_code, str(error)))
        for scope in ("main", "other"):
            try:
                said.append((await pull_all(clients["a"], scope))[0])
            except RemoteError as error:  # the log does not reach back to the beginning
                said.append((error.remote_code, str(error)))
    return said


async def one(hub: Any, clients: dict[str, Client], step: Step) -> object:
    match step:
        case ("push", name, scope, base, mutations):
            client = clients[name]
            first = len(client.mutations) + 1
            for written in mutations:
                client.write(*written, scope=scope, base=base)
            return (await client.push(first)).outcomes
        case ("again", name):
            return (await clients[name].push(1)).outcomes if clients[name].mutations else ()
        case ("write", scope, entries, atomic, key):
            entries = [scoped(op, scope) for op in entries]
            result = await clients["a"].service.write(direct(*entries, idem=key, atomic=atomic))
            return [(item.error.code if item.error else "", item.version) for item in result.items]
        case ("compact", keep, days):
            report = await hub.compact(keep=keep, keep_days=days, force=True)
            return (
                report.transactions,
                report.changes,
                report.tombstones,
                report.outcomes,
                report.answers,
                dict(report.floors),
            )
        case _:
            await hub.new_epoch(devices=step[1])
            return None


def kept(home: Home) -> dict[str, Found]:
    """The tables, without times and numbers that are drawn."""
    blank = {"nobody": "x''" if type(home).__name__ == "SQLiteHome" else "''::bytea"}
    return {name: home.ask(sql.replace("{nobody}", blank["nobody"])) for name, sql in TABLES.items()}


SEAT = Op("create", "seats", "1", {"place": "window"})


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=3, max_size=14))
@example(
    steps=[
        (
            "push",
            "a",
            "main",
            0,
            [[SEAT], [Op("create", "seats", "2", {"place": "window"})], [Op("delete", "seats", "1")]],
        ),
        ("compact", 0, -1),
        ("epoch", "offer"),
        ("push", "b", "main", 0, [[Op("create", "seats", "2", {"place": "window"})]]),
        ("again", "a"),
    ]
)
async def test_both_stores_come_to_the_same(steps: list[Step]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        home_of("sqlite", Path(folder)) as file,
        home_of("postgres", Path(folder)) as server,
    ):
        on_file, on_server = await answers(file, steps), await answers(server, steps)
        for step, one_said, other_said in zip([*steps, "main", "other"], on_file, on_server, strict=True):
            assert one_said == other_said, step
        event(f"{sum(step[0] == 'push' for step in steps)} pushes")
        assert kept(file) == kept(server)
        for store in stores_of(SQLITE, SCHEMA).values():
            assert rows_of_store(file, store) == rows_of_store(server, store)
        if not any(step[0] in ("compact", "epoch") for step in steps):
            check_truth(server, SCHEMA)
