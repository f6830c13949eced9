"""Rules of fields at a hub, over every store of hubs: what the log tells of others, and what is admitted at all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from atoma.contracts.codec import encode
from atoma.contracts.mutations import Edit, MutationBody, Op
from atoma.contracts.sync import Outcome
from tests.properties.test_merging import SCHEMA, START
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import SCOPE, Client, direct, hub_on, pull_all


async def push(client: Client, *ops: Op, base: int, at_ms: int = 0, doubtful: bool = False) -> Outcome:
    mid = len(client.mutations) + 1
    body = MutationBody(mid, f"{client.client_id!r}:{mid}", SCOPE, base, 1, at_ms, ops, doubtful=doubtful)
    client.write(body=encode(body))
    reply = await client.push(mid)
    assert reply.error is None, reply.error
    return reply.outcomes[0]


def edit(field: str, kind: Any, operand: Any) -> Op:
    return Op("patch", "polls", "1", edits=(Edit(field, kind, operand),))


async def row_of(hub: Any, store: str) -> dict[str, Any]:
    rows, _ = await pull_all(Client.of(hub, "reader"))
    return dict(rows[store, "1"])


async def row(hub: Any) -> dict[str, Any]:
    return await row_of(hub, "polls")


async def test_what_the_log_tells_of_others_decides_and_what_it_no_longer_tells_stays(home: Home) -> None:
    async with hub_on(home.store(), schema=SCHEMA) as hub:
        ann, bob = Client.of(hub, "ann"), Client.of(hub, "bob")
        assert (await push(ann, Op("create", "polls", "1", {**START, "tags": '["x"]'}), base=0)).seq == 1
        await push(ann, edit("votes", "inc", 5), base=1)
        await push(ann, edit("tags", "remove", '["x"]'), base=2)
        await push(ann, edit("tags", "add", '["x","y"]'), base=3)
        taken = await push(bob, edit("votes", "inc", -7), edit("tags", "remove", '["x"]'), base=1)
        assert (taken.status, (await row(hub))["votes"], (await row(hub))["tags"]) == ("applied", -2, '["x","y"]')
        await push(bob, edit("tags", "remove", '["x"]'), base=5)
        assert (await row(hub))["tags"] == '["y"]', "seen, and removed"
        await push(ann, Op("patch", "polls", "1", {"note": "noon"}), base=6, at_ms=12)
        late = await push(bob, Op("patch", "polls", "1", {"note": "eleven"}), base=6, at_ms=11)
        assert (late.status, late.conflicts[0].rule, late.conflicts[0].dropped) == ("rejected", "lww_hlc", ("note",))
        later = await push(bob, Op("patch", "polls", "1", {"note": "one"}), base=6, at_ms=13)
        assert (later.status, (await row(hub))["note"]) == ("merged", "one")
        await hub.compact(keep=0)
        unknown = await push(ann, edit("tags", "remove", '["y"]'), base=4)
        assert (unknown.status, unknown.conflicts[0].dropped) == ("merged", ("tags",))
        told = await ann.service.write(direct(Op("patch", "polls", "1", {"title": "t"}, scope=SCOPE), idem="t"))
        assert told.items[0].row is not None and told.items[0].row["tags"] == '["y"]'


async def test_a_direct_write_merges_as_well(home: Home) -> None:
    async with hub_on(home.store(), schema=SCHEMA) as hub:
        ann = Client.of(hub, "ann")
        await push(ann, Op("create", "polls", "1", START), base=0)
        ops = [edit("votes", "inc", 3), Op("patch", "polls", "1", {"best": 4}), Op("patch", "polls", "1", {"best": 2})]
        for number, op in enumerate(ops):
            written = await ann.service.write(direct(msgspec.structs.replace(op, scope=SCOPE), idem=str(number)))
            assert written.items[0].ok, written.items[0].error
        assert ((await row(hub))["votes"], (await row(hub))["best"]) == (3, 4)
        again = await ann.service.write(direct(msgspec.structs.replace(ops[0], scope=SCOPE), idem="0"))
        assert again.items[0].ok and (await row(hub))["votes"] == 3


async def test_an_increment_that_may_have_been_decided_is_not_taken_even_where_nobody_was(home: Home) -> None:
    async with hub_on(home.store(), schema=SCHEMA) as hub:
        ann = Client.of(hub, "ann")
        await push(ann, Op("create", "polls", "1", START), base=0)
        doubtful = await push(ann, edit("votes", "inc", 1), base=1, doubtful=True)
        assert doubtful.error is not None and doubtful.error.code == "UNKNOWN_OUTCOME"
        assert (await push(ann, edit("best", "max", 9), base=1, doubtful=True)).status == "applied"
        assert ((await row(hub))["votes"], (await row(hub))["best"]) == (0, 9)


@pytest.mark.parametrize(
    ("op", "why"),
    [
        (edit("votes", "max", 1), "does not take the edit 'max'"),
        (edit("title", "inc", 1), "does not take the edit 'inc'"),
        (edit("nothing", "inc", 1), "does not take the edit 'inc'"),
        (edit("votes", "inc", None), "says nothing"),
        (edit("votes", "inc", "1"), "wants int"),
        (edit("votes", "inc", 2**64 - 1), "64-bit int"),
        (edit("votes", "inc", [1]), "not a column value"),
        (edit("votes", "inc", 2**63 - 1), "beyond 64 bits"),
        (edit("tags", "add", "x"), "not of type"),
        (Op("patch", "polls", "1", edits=(Edit("votes", "inc", 1), Edit("votes", "inc", 1))), "twice"),
        (Op("patch", "polls", "1", {"votes": 1}, edits=(Edit("votes", "inc", 1),)), "written and edited"),
        (Op("delete", "polls", "1", edits=(Edit("votes", "inc", 1),)), "a delete has no edits"),
        (Op("create", "polls", "2", START, edits=(Edit("votes", "inc", 1),)), "a create has no edits"),
    ],
)
async def test_edits_that_do_not_fit_are_refused(op: Op, why: str) -> None:
    async with hub_on(":memory:", schema=SCHEMA) as hub:
        ann = Client.of(hub, "ann")
        await push(ann, Op("create", "polls", "1", {**START, "votes": 1}), base=0)
        refused = await push(ann, op, base=1)
        assert refused.error is not None
        assert refused.error.code == "INVALID" and why in refused.error.message, refused.error
