"""Soft delete at a hub: a deletion to the conflict rules, a row with a mark to devices, and nothing to those who ask."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import trio

from atoma import Index, Schema, StoreSpec, open_hub
from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.mutations import Op
from atoma.contracts.query import Agg, BoundQuery, Named, Plan, Store
from atoma.contracts.values import HIDDEN
from atoma.errors import ConfigurationError, RemoteError
from atoma.hub import AllowLoopback, Caller, Hub
from atoma.ports import seeded_environment
from atoma.ports.service import Principal
from atoma.schema.expressions import Condition, col
from atoma.schema.hiding import UNTIMED
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import Client, direct, pull_all, snapshot_page


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str = ""
    lane: str = "todo"


def spec(name: str, conflict: Any = "lww", **more: Any) -> StoreSpec[Card]:
    return StoreSpec(name, Card, scope="main", conflict=conflict, soft_delete=True, **more)


RULES = ("lww", "server_wins", "client_wins", "manual")
SCHEMA = Schema(
    *[spec(rule, rule) for rule in RULES],
    spec("named", indexes=[Index("title", unique=True)]),
    StoreSpec("brief", Card, scope="main", soft_delete=timedelta(days=2)),
)
DAY_S = 86_400
LONG_AGO = "1999-01-01T00:00:00.000000Z"


def create(store: str, id: str, **values: Any) -> Op:
    return Op("create", store, id, {"title": "t", "lane": "todo", **values})


def hide(store: str, id: str) -> Op:
    return Op("patch", store, id, {HIDDEN: UNTIMED})


def restore(store: str, id: str) -> Op:
    return Op("patch", store, id, {HIDDEN: None})


def remove(store: str, id: str) -> Op:
    return Op("delete", store, id)


@asynccontextmanager
async def hub_at(home: Home, **options: Any) -> AsyncIterator[Hub]:
    async with open_hub(SCHEMA, home.store(), verifier=AllowLoopback(), **options) as hub:
        yield hub


async def rows(client: Client) -> dict[tuple[str, str], dict[str, Any]]:
    found, _ = await pull_all(client)
    return found


async def asked(client: Client, store: str, *, hidden: bool = False) -> set[str]:
    request = QueryRequest(BoundQuery(Plan(Store(store, hidden=hidden))), OperationContext("trace"))
    return {row.id for row in (await client.service.query(request)).rows}


async def test_a_deletion_travels_as_a_mark_and_answers_to_queries_pass_over_it(home: Home) -> None:
    async with hub_at(home) as hub:
        ann, bob = Client.of(hub, "a", "ann"), Client.of(hub, "b", "bob")
        await ann.do(create("lww", "1"), create("lww", "2"))
        applied = await ann.do(Op("patch", "lww", "1", {HIDDEN: LONG_AGO}))
        assert applied.status == "applied"
        row = (await rows(bob))["lww", "1"]
        assert row["title"] == "t" and row[HIDDEN] > "2020", "by the hub's clock, whatever the device said"
        assert await asked(bob, "lww") == {"2"}
        again = await bob.do(hide("lww", "1"), base=applied.seq)
        assert again.status == "applied" and again.seq == applied.seq, "it is gone, as was asked for"
        back = await bob.do(restore("lww", "1"), base=applied.seq)
        assert back.status == "applied" and await asked(bob, "lww") == {"1", "2"}
        assert (await rows(ann))["lww", "1"][HIDDEN] is None
        told = await bob.service.write(direct(hide("lww", "2"), idem="k1"))
        assert told.items[0].changed and await asked(ann, "lww") == {"1"}
        refused = await bob.service.write(direct(Op("patch", "lww", "2", {"lane": "x"}), idem="k2"))
        assert refused.items[0].error is not None and refused.items[0].error.code == "NOT_FOUND"
        there = await bob.service.write(direct(create("lww", "2"), idem="k3"))
        assert there.items[0].error is not None and "restore it" in there.items[0].error.message
        await bob.service.write(direct(Op("upsert", "lww", "2", {"lane": "new", HIDDEN: None}), idem="k4"))
        assert (await rows(ann))["lww", "2"] == {"title": "t", "lane": "new", HIDDEN: None}
        purged = await ann.do(Op("delete", "lww", "2"), base=99)
        assert purged.status in ("applied", "merged") and ("lww", "2") not in await rows(bob)


@pytest.mark.parametrize("rule", RULES)
async def test_for_the_conflict_rules_a_soft_deletion_is_a_deletion(rule: str, home: Home) -> None:
    """What becomes of a write that meets a deletion is the same, whether the row is gone or hidden."""
    async with hub_at(home) as hub:
        ann, bob = Client.of(hub, "a", "ann"), Client.of(hub, "b", "bob")
        found: dict[str, list[Any]] = {}
        for number, delete in enumerate((hide, remove)):
            said = found.setdefault(delete(rule, "x").kind, [])
            for at, late in enumerate(
                (
                    Op("patch", rule, "", {"lane": "mine"}),
                    Op("upsert", rule, "", {"lane": "mine", HIDDEN: None}, {"title": "t"}),
                    Op("replace", rule, "", {"title": "t", "lane": "mine"}),
                )
            ):
                id = f"{number}{at}"
                seq = (await ann.do(create(rule, id))).seq
                await ann.do(delete(rule, id), base=seq)
                outcome = await bob.do(Op(late.kind, rule, id, late.values, late.defaults), base=seq)
                left = (await rows(bob)).get((rule, id))
                shown = None if left is None or left[HIDDEN] is not None else left
                said.append((outcome.status, outcome.error and outcome.error.code, shown))
            # and a deletion that meets a change
            id = f"{number}c"
            seq = (await ann.do(create(rule, id))).seq
            await ann.do(Op("patch", rule, id, {"lane": "theirs"}), base=seq)
            outcome = await bob.do(delete(rule, id), base=seq)
            left = (await rows(bob)).get((rule, id))
            shown = None if left is None or left[HIDDEN] is not None else left
            said.append((outcome.status, outcome.error and outcome.error.code, shown))
        assert found["patch"] == found["delete"]
        assert any(shown for _, _, shown in found["patch"]), "some rule lets a row be seen again"


async def test_a_value_is_free_while_its_row_is_hidden_and_a_restore_onto_it_is_refused(home: Home) -> None:
    async with hub_at(home) as hub:
        ann = Client.of(hub, "a", "ann")
        await ann.do(create("named", "1", title="same"))
        await ann.do(hide("named", "1"), base=1)
        assert (await ann.do(create("named", "2", title="same"), base=2)).status == "applied"
        refused = await ann.do(restore("named", "1"), base=3)
        assert refused.error is not None and refused.error.code == "CONSTRAINT"
        await ann.do(hide("named", "2"), base=3)
        assert (await ann.do(restore("named", "1"), base=4)).status == "applied"


@pytest.mark.virtual_time
async def test_compaction_purges_what_has_been_hidden_for_long_enough(home: Home) -> None:
    async with hub_at(home, environment=seeded_environment(1)) as hub:
        ann = Client.of(hub, "a", "ann")
        await ann.do(*[create("brief", str(number)) for number in range(4)], create("lww", "kept"))
        await ann.do(hide("brief", "1"), hide("brief", "2"), hide("lww", "kept"), base=1)
        await trio.sleep(1.5 * DAY_S)
        await ann.do(hide("brief", "3"), restore("brief", "2"), base=2)
        assert (await hub.compact()).purged == 0
        await trio.sleep(1 * DAY_S)
        report = await hub.compact()
        assert report.purged == 1
        assert {id for _, id in await rows(ann)} == {"0", "2", "3", "kept"}, "a device gets it as a deletion"
        await trio.sleep(2 * DAY_S)
        assert (await hub.compact()).purged == 1 and (await hub.compact()).purged == 0
        assert {id for _, id in await rows(ann)} == {"0", "2", "kept"}


async def test_deleted_rows_are_shown_to_whom_the_hub_says(home: Home) -> None:
    plan = BoundQuery(Plan(Store("lww", hidden=True), columns=(Named("n", Agg("count")),)))
    request = QueryRequest(plan, OperationContext("trace"))

    asked_about: list[str] = []

    def may(principal: Principal) -> bool:
        asked_about.append(principal.subject)
        return principal.subject == "ann"

    async with hub_at(home) as hub:
        ann = Client.of(hub, "a", "ann")
        await ann.do(create("lww", "1"), create("lww", "2"))
        await ann.do(hide("lww", "1"), base=1)
        with pytest.raises(RemoteError) as nobody:
            await ann.service.query(request)
        assert nobody.value.remote_code == "UNSUPPORTED"
    async with hub_at(home, deleted_rows=may) as hub:
        ann, bob = Client.of(hub, "a", "ann"), Client.of(hub, "b", "bob")
        assert (await ann.service.query(request)).tuples == ((2,),)
        with pytest.raises(RemoteError) as refused:
            await bob.service.query(request)
        assert refused.value.remote_code == "PERMISSION_DENIED"
        assert await asked(bob, "lww") == {"2"}
        assert asked_about == ["ann", "bob"], "of a query that asks for none nobody is asked"
    with pytest.raises(ConfigurationError, match="deleted_rows must be a function"):
        async with hub_at(home, deleted_rows=True):
            pass


async def test_a_hidden_row_is_under_the_rule_of_its_store(home: Home) -> None:
    """Whoever may see a row gets its mark, by pages and by snapshots; others hear of it neither hidden nor shown again."""

    def own(caller: Caller) -> Condition:
        return (col("lane") == caller.subject) | (caller.claim("role") == "boss")

    async with hub_at(home, row_rules={"lww": own}, deleted_rows=lambda _: True) as hub:
        boss = Client(hub.service(Principal("boss", {"role": "boss"})), b"device of boss..")
        ann, bob = Client.of(hub, "a", "ann"), Client.of(hub, "b", "bob")
        await boss.do(create("lww", "1", lane="ann"), create("lww", "2", lane="bob"))
        starts = [(await client.pull()).end for client in (ann, bob)]
        hidden = await boss.do(hide("lww", "1"), base=1)
        pages = [await client.pull(start) for client, start in zip((ann, bob), starts, strict=True)]
        assert [len(page.stores) for page in pages] == [1, 0]
        for client, ids in ((ann, {"1"}), (bob, {"2"})):
            found, *_ = await snapshot_page(client)
            assert found == await rows(client)
            assert {id for _, id in found} == ids
            assert await asked(client, "lww", hidden=True) == ids
        assert (await rows(ann))["lww", "1"][HIDDEN] is not None and await asked(ann, "lww") == set()
        for op in (restore("lww", "1"), hide("lww", "1"), create("lww", "1", lane="bob")):
            denied = await bob.do(op, base=hidden.seq)
            assert denied.error is not None and denied.error.code == "DENIED", op
        assert (await ann.do(restore("lww", "1"), base=hidden.seq)).status == "applied"
        await boss.do(hide("lww", "1"), base=9)
        await boss.do(remove("lww", "1"), base=9)
        pages = [await client.pull(page.end) for client, page in zip((ann, bob), pages, strict=True)]
        assert [[deleted for part in page.stores for _, deleted in part.deletes] for page in pages] == [["1"], []]
