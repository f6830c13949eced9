"""Pushing: order, duplicates, forks, malformed and refused mutations."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trio
from msgspec.structs import replace

from atoma.contracts.codec import encode
from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.mutations import MutationBody, Op
from atoma.contracts.survey import CONTAINERS_MAX, VALUES_MAX
from atoma.contracts.sync import (
    Cursor,
    Limits,
    Mark,
    Mutation,
    Place,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotRequest,
)
from atoma.contracts.values import RowImage
from atoma.errors import RemoteError
from atoma.hub import Access
from atoma.ports.service import Principal
from atoma.query.plans import by_ids
from atoma.schema import Index, Schema, StoreSpec
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import SCOPE, Client, Seat, card, direct, hub_on, pull_all


def create(id: str, title: str = "t", store: str = "cards") -> Op:
    return Op("create", store, id, card(title))


class ScopeRules:
    """``local`` writes main, reads news; nothing else."""

    def scope_access(self, principal: Principal, scope: str) -> Access:
        return {"main": "write", "news": "read"}.get(scope, "none")  # type: ignore[return-value]


class BrokenRules:
    """Rules with a bug that can be repaired."""

    broken = True

    def scope_access(self, principal: Principal, scope: str) -> Access:
        if self.broken:
            raise ZeroDivisionError
        return "write"


async def test_mutations_are_decided_in_order_and_get_dense_sequences(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        for number in range(1, 6):
            client.write(create(str(number)))
        reply = await client.push()
        assert [(o.mid, o.status, o.seq) for o in reply.outcomes] == [(n, "applied", n) for n in range(1, 6)]
        assert reply.last_mid == 5
        assert set(await client.query()) == {"1", "2", "3", "4", "5"}


async def test_a_duplicate_gets_the_same_outcome_also_after_a_restart(home: Home) -> None:
    store = home.store()
    async with hub_on(store) as hub:
        client = Client.of(hub, "a")
        client.write(create("1"))
        client.write(create("1", "another"))
        client.write(Op("patch", "cards", "1", {"title": "new"}))
        first = await client.push()
        again = await client.push(2)
    async with hub_on(store) as hub:
        client = client.on(hub)
        restarted = await client.push()
        rows, end = await pull_all(client)
    assert [o.status for o in first.outcomes] == ["applied", "rejected", "applied"]
    for outcome in (*again.outcomes, *restarted.outcomes):
        assert outcome.duplicate
        before = first.outcomes[outcome.mid - 1]
        assert (outcome.status, outcome.seq, outcome.error, outcome.conflicts, outcome.scope) == (
            before.status, before.seq, before.error, before.conflicts, before.scope
        )  # fmt: skip
    assert end.seq == 2
    assert rows["cards", "1"]["title"] == "new"


async def test_a_gap_stops_the_batch_and_names_what_is_expected(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        for number in range(1, 5):
            client.write(create(str(number)))
        await client.push(1, 1)
        reply = await client.push(3)
        assert reply.outcomes == ()
        assert reply.last_mid == 1
        assert reply.error is not None
        assert (reply.error.code, reply.error.retryable, reply.error.info["expected"]) == ("OUT_OF_ORDER", True, "2")
        mutations = (client.mutations[1], client.mutations[3])
        jumped = Mutation(4, mutations[1].body, hashlib.sha256(mutations[0].digest + mutations[1].body).digest())
        request = PushRequest(client.client_id, 1, (mutations[0], jumped), client.digests[1])
        partly = await client.service.push(request)
        assert [o.mid for o in partly.outcomes] == [2]
        assert partly.error is not None and partly.error.info["expected"] == "3"
        assert set(await client.query()) == {"1", "2"}


async def test_who_has_pushed_nothing_yet_has_nothing_decided(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        assert await client.push() == PushReply((), 0)
        client.write(create("1"))
        assert [outcome.mid for outcome in (await client.push()).outcomes] == [1]
        assert await client.push(2) == PushReply((), 1)


async def test_another_history_under_the_same_client_id_is_a_fork(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        first, copy = Client.of(hub, "a"), Client.of(hub, "a")
        for client in (first, copy):
            client.write(create("1"))
        await first.push()
        assert (await copy.push()).outcomes[0].duplicate
        first.write(create("2"))
        copy.write(create("3"))
        copy.write(create("4"))
        await first.push(2)
        for begin, end in ((1, 3), (2, 3), (3, 3), (1, 2), (2, 2)):
            with pytest.raises(RemoteError) as refused:
                await copy.push(begin, end)
            assert refused.value.remote_code == "CLIENT_FORKED"
        assert (await copy.open(tail=1)).last_mid == 2, "the copy finds out by itself"
        first.incarnation = 2
        first.write(create("5"))
        with pytest.raises(RemoteError) as other:
            await first.push(3)
        assert other.value.remote_code == "CLIENT_FORKED"
        assert set(await first.query()) == {"1", "2"}


async def test_a_client_id_belongs_to_its_first_principal(home: Home) -> None:
    store = home.store()
    async with hub_on(store) as hub:
        mine = Client.of(hub, "a", "ann")
        assert (await mine.do(create("1"))).status == "applied"
    async with hub_on(store) as hub:
        theirs = mine.on(hub, "bob")
        theirs.write(create("2"))
        with pytest.raises(RemoteError) as refused:
            await theirs.push(2)
        assert refused.value.remote_code == "WRONG_HUB"
        with pytest.raises(RemoteError) as refused:
            await theirs.open()
        assert refused.value.remote_code == "WRONG_HUB"
        assert (await theirs.pull()).outcomes == ()
        assert [o.mid for o in (await mine.on(hub, "ann").pull()).outcomes] == [1]


async def test_bytes_that_do_not_fit_their_digest_are_never_decided(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        client.write(create("1"))
        second = client.write(create("2"))
        client.mutations[1] = Mutation(2, second.body[:-1] + bytes([second.body[-1] ^ 1]), second.digest)
        reply = await client.push()
        assert [o.status for o in reply.outcomes] == ["applied"]
        assert reply.error is not None and reply.error.code == "MALFORMED"
        with pytest.raises(RemoteError) as refused:
            await client.push(2)
        assert refused.value.remote_code == "MALFORMED"
        client.mutations[1] = second
        assert [o.status for o in (await client.push(2)).outcomes] == ["applied"]


@pytest.mark.parametrize(
    "op",
    [
        Op("create", "nowhere", "1", card("t")),
        Op("create", "cards", "", card("t")),
        Op("create", "cards", "x" * 201, card("t")),
        Op("create", "cards", "a\x00b", card("t")),
        Op("create", "cards", "1", {"lane": "todo"}),
        Op("create", "cards", "1", card("t", colour="red")),
        Op("create", "cards", "1", card("t", id="2")),
        Op("create", "cards", "1", card("t", _seq=4)),
        Op("create", "cards", "1", card("t", rank=float("nan"))),
        Op("create", "cards", "1", card("t", rank="high")),
        Op("create", "cards", "1", card("t", done=7)),
        Op("create", "cards", "1", card("t", done="yes")),
        Op("create", "cards", "1", {"title": 5}),
        Op("create", "cards", "1", {"title": None}),
        Op("create", "cards", "1", {"title": ["a", "list"]}),  # type: ignore[dict-item]
        Op("create", "cards", "1", {"title": b"bytes"}),
        Op("create", "cards", "1", card("t", board="elsewhere")),
        Op("patch", "cards", "1", {"board": "elsewhere"}),
        Op("delete", "cards", "1", {"title": "x"}),
        Op("patch", "cards", "1", {"title": "x"}, after_mid=9),
        Op("upsert", "cards", "1", {"lane": "done"}),
    ],
)
async def test_what_does_not_fit_the_schema_is_an_invalid_outcome(op: Op, home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        outcome = await client.do(create("0"), op)
        assert outcome.status == "rejected"
        assert outcome.error is not None and outcome.error.code == "INVALID"
        assert await client.query() == {}
        assert (await client.do(create("0"))).status == "applied"


async def test_a_body_that_is_no_mutation_is_an_invalid_outcome_and_the_queue_moves_on(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        client.write(body=b"\xc1 no msgpack")
        client.write(body=encode(MutationBody(99, "k", SCOPE, 0, 1, 0, ())))
        client.write(create("1"))
        client.write(create("2"), scope="")
        client.write(create("3"), base=-1)
        reply = await client.push()
        assert [(o.status, o.error.code if o.error else "") for o in reply.outcomes] == [
            ("rejected", "INVALID"),
            ("rejected", "INVALID"),
            ("applied", ""),
            ("rejected", "INVALID"),
            ("rejected", "INVALID"),
        ]
        assert [o.mid for o in (await client.pull()).outcomes] == [1, 2, 3, 4, 5]


async def test_limits_at_the_edge(home: Home) -> None:
    limits = Limits(mutation_bytes=400, mutation_ops=3, push_mutations=2, push_bytes=700, page_bytes=1000)
    async with hub_on(home.store(), limits=limits) as hub:
        client = Client.of(hub, "a")
        fits = client.write(create("1", "x"))
        room = 400 - len(fits.body)
        exact = client.write(create("2", "x" * (1 + room)))
        over = client.write(create("3", "x" * (2 + room)))
        assert abs(len(exact.body) - 400) <= 2
        assert len(over.body) > len(exact.body)
        statuses = [(await client.push(mid, mid)).outcomes[0] for mid in (1, 2, 3)]
        assert statuses[0].status == "applied"
        assert statuses[1].status == ("applied" if len(exact.body) <= 400 else "rejected")
        assert statuses[2].error is not None and statuses[2].error.code == "TOO_LARGE"
        assert (await client.do(*(Op("delete", "cards", "9") for _ in range(3)))).status == "applied"
        many = await client.do(*(Op("delete", "cards", "9") for _ in range(4)))
        assert many.error is not None and many.error.code == "TOO_LARGE"
        for number in range(3):
            client.write(create(f"n{number}"))
        with pytest.raises(RemoteError) as refused:
            await client.push(6)
        assert (refused.value.remote_code, refused.value.remote_retryable) == ("TOO_LARGE", False)
        assert len((await client.push(6, 7)).outcomes) == 2


async def test_a_mutation_that_holds_too_much_is_refused_without_being_read(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        lists = msgspec.Raw(b"\xdd" + (2 * CONTAINERS_MAX).to_bytes(4, "big") + b"\x90" * 2 * CONTAINERS_MAX)
        numbers = msgspec.Raw(b"\xdd" + (VALUES_MAX + 1).to_bytes(4, "big") + b"\x01" * (VALUES_MAX + 1))
        for value in (lists, numbers):
            outcome = await client.do(Op("create", "cards", "1", {"title": value}))
            assert outcome.error is not None and outcome.error.code == "TOO_LARGE"
        client.write(body=b"\x01" * (VALUES_MAX + 1))  # nor is it found out that this is not a mutation at all
        (outcome,) = (await client.push(3)).outcomes
        assert outcome.error is not None and outcome.error.code == "TOO_LARGE"
        assert (await client.do(create("2", "x" * 900_000))).status == "applied"


async def test_post_images_are_bounded_so_that_a_page_always_fits(home: Home) -> None:
    async with hub_on(home.store(), limits=Limits(page_bytes=1000)) as hub:
        client = Client.of(hub, "a")
        for number in range(3):
            assert (await client.do(create(str(number), "x" * 300))).status == "applied"
        outcome = await client.do(*(Op("patch", "cards", str(number), {"done": 1}) for number in range(3)))
        assert outcome.error is not None and outcome.error.code == "TOO_LARGE"
        assert not any(row["done"] for row in (await client.query()).values())


async def test_a_row_is_never_larger_than_a_mutation_that_brings_it_back(home: Home) -> None:
    """Two writes that fit make a row that no device could offer to a hub that has lost it."""
    async with hub_on(home.store(), limits=Limits(mutation_bytes=1000)) as hub:
        client = Client.of(hub, "a")
        assert (await client.do(create("1", "x" * 600))).status == "applied"
        outcome = await client.do(Op("patch", "cards", "1", {"lane": "y" * 600}))
        assert outcome.error is not None and outcome.error.code == "TOO_LARGE"
        wide = direct(Op("patch", "cards", "1", {"lane": "y" * 600}, scope=SCOPE), idem="key")
        (item,) = (await hub.service(Principal("ann")).write(wide)).items
        assert item.error is not None and item.error.code == "TOO_LARGE"
        assert (await client.do(Op("patch", "cards", "1", {"lane": "y" * 200}))).status == "applied"


async def test_a_row_that_is_larger_than_the_limit_by_now_may_change_and_not_grow(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        assert (await client.do(create("1", "x" * 1500))).status == "applied"
    async with hub_on(home.store(), limits=Limits(mutation_bytes=1000)) as hub:
        client = Client.of(hub, "b")
        assert (await client.do(Op("patch", "cards", "1", {"lane": "done"}))).status == "merged"
        outcome = await client.do(Op("patch", "cards", "1", {"lane": "done by now"}))
        assert outcome.error is not None and outcome.error.code == "TOO_LARGE"


async def test_writes_need_access_to_their_scope(home: Home) -> None:
    async with hub_on(home.store(), rules=ScopeRules()) as hub:
        client = Client.of(hub, "a")
        for scope, expected in (("main", "applied"), ("news", "DENIED"), ("secret", "DENIED")):
            outcome = await client.do(Op("create", "cards", "1", {**card("t"), "board": scope}), scope=scope)
            assert (outcome.error.code if outcome.error else outcome.status) == expected


async def test_a_fault_of_the_hub_is_no_verdict(home: Home) -> None:
    rules = BrokenRules()
    async with hub_on(home.store(), rules=rules) as hub:
        client = Client.of(hub, "a")
        client.write(create("1"))
        with pytest.raises(RemoteError) as failed:
            await client.push()
        assert (failed.value.remote_code, failed.value.remote_retryable) == ("INTERNAL", True)
        assert "ZeroDivision" not in str(failed.value)
        rules.broken = False
        assert (await client.push()).outcomes[0].status == "applied"


async def test_a_mutation_from_a_newer_schema_waits_for_the_hub(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        client.write(create("1"))
        client.write(Op("create", "boards", "1", {}), version=2)
        reply = await client.push()
        assert [o.mid for o in reply.outcomes] == [1]
        assert reply.last_mid == 1
        assert reply.error is not None and reply.error.code == "SCHEMA_TOO_NEW"


async def test_what_builds_on_a_rejected_mutation_is_rejected_with_it(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        other, client = Client.of(hub, "o"), Client.of(hub, "a")
        await other.do(create("1"))
        client.write(create("1", "mine"))
        client.write(Op("patch", "cards", "1", {"title": "stranger's"}, after_mid=1))
        client.write(Op("patch", "cards", "1", {"title": "again"}, after_mid=2))
        client.write(Op("patch", "cards", "1", {"lane": "done"}), base=1)
        outcomes = (await client.push()).outcomes
        codes = [o.error.code if o.error else o.status for o in outcomes]
        assert codes == ["ALREADY_EXISTS", "DEPENDENCY_REJECTED", "DEPENDENCY_REJECTED", "applied"]
        assert [o.error.info["root_mid"] for o in outcomes[1:3] if o.error] == ["1", "1"]
        assert (await client.query())["1"]["title"] == "t"


async def test_a_mutation_that_changes_nothing_is_applied_at_the_head_and_spends_no_sequence(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await client.do(create("1", "same"))
        await client.do(create("2"))
        nothing = await client.do(Op("patch", "cards", "1", {"title": "same"}), base=2)
        gone = await client.do(Op("delete", "cards", "9"), base=2)
        assert [(o.status, o.seq) for o in (nothing, gone)] == [("applied", 2), ("applied", 2)]
        assert (await client.do(create("3"))).seq == 3


async def test_a_row_that_was_created_alike_is_there_already_and_nobody_disagrees(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        other, client = Client.of(hub, "o"), Client.of(hub, "a")
        for store in ("cards", "kept", "mine", "hands"):
            await other.do(Op("create", store, "1", card("same")))
            alike = await client.do(Op("create", store, "1", card("same")))
            assert (alike.status, alike.conflicts, alike.seq) == ("applied", (), (await client.open()).scopes[0].head)
            unlike = await client.do(Op("create", store, "1", card("same", lane="done")))
            assert unlike.error is not None and unlike.error.code == "ALREADY_EXISTS"
        assert (await pull_all(client))[1].seq == 4


async def test_a_rejected_operation_takes_its_whole_mutation_along(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await client.do(create("1"))
        outcome = await client.do(create("2"), Op("patch", "cards", "1", {"title": "x"}), create("1"))
        assert outcome.error is not None and outcome.error.code == "ALREADY_EXISTS"
        assert outcome.conflicts[0].current == {**card("t"), "board": SCOPE}
        rows = await client.query()
        assert set(rows) == {"1"}
        assert rows["1"]["title"] == "t"


async def test_a_unique_index_is_a_verdict_and_values_may_change_places(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await client.do(Op("create", "seats", "1", {"place": "front"}), Op("create", "seats", "2", {"place": "back"}))
        taken = await client.do(Op("create", "seats", "3", {"place": "front"}))
        assert taken.error is not None and taken.error.code == "CONSTRAINT"
        assert "UNIQUE" not in taken.error.message
        stranger = Client.of(hub, "b")
        first = await stranger.do(Op("create", "seats", "4", {"place": "back"}))
        assert first.error is not None and first.error.code == "CONSTRAINT"
        assert (await stranger.push()).outcomes[0].duplicate
        elsewhere = await client.do(Op("create", "seats", "1", {"place": "front", "board": "other"}), scope="other")
        assert elsewhere.status == "applied"
        swapped = await client.do(
            Op("patch", "seats", "1", {"place": "back"}), Op("patch", "seats", "2", {"place": "front"}), base=1
        )
        assert (swapped.status, swapped.seq) == ("applied", 2)
        rows, _ = await pull_all(client)
        assert {id: row["place"] for (_, id), row in rows.items()} == {"1": "back", "2": "front"}


async def test_a_unique_index_may_have_the_id_in_it(home: Home) -> None:
    placed = StoreSpec("seats", Seat, scope="board", indexes=[Index("place", "id", unique=True)])
    async with hub_on(home.store(), schema=Schema(placed)) as hub:
        client = Client.of(hub, "a")
        for id in ("1", "2"):
            assert (await client.do(Op("create", "seats", id, {"place": "front"}))).status == "applied"
        rows, _ = await pull_all(client)
        assert [id for _, id in rows] == ["1", "2"]


async def test_a_verdict_is_kept_for_days_although_it_was_confirmed(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        other, client = Client.of(hub, "o"), Client.of(hub, "a")
        await other.do(create("1"))
        client.write(Op("patch", "cards", "1", {"title": "mine"}))
        merged = (await client.push()).outcomes[0]
        assert merged.status == "merged" and merged.conflicts[0].fields
        await client.service.push(PushRequest(client.client_id, 1, (), client.digests[1], 1))
        again = (await client.push()).outcomes[0]
        assert again == replace(merged, duplicate=True), "a restored file asks for it long after it was confirmed"
        assert (await hub.compact(keep=0)).outcomes == 0, "it is not old enough"
        report = await hub.compact(keep=0, keep_days=-1)
        assert report.outcomes == 1
        with pytest.raises(RemoteError) as forgotten:
            await client.push()
        assert forgotten.value.remote_code == "CLIENT_FORKED"


@pytest.mark.parametrize("client_id", [b"", b"7 bytes", b"x" * 65])
async def test_a_client_id_has_a_bounded_length(client_id: bytes, home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client(hub.service(Principal("local")), client_id)
        client.write(create("1"))
        with pytest.raises(RemoteError) as refused:
            await client.push()
        assert refused.value.remote_code == "MALFORMED"
        for length in (8, 64):
            client = Client(hub.service(Principal("local")), b"x" * length)
            client.write(create(str(length)))
            assert [outcome.status for outcome in (await client.push()).outcomes] == ["applied"]


async def test_thirty_two_writers_get_dense_sequences_per_scope(home: Home) -> None:
    got: dict[str, list[int]] = {"s0": [], "s1": []}

    async def write(client: Client, number: int) -> None:
        scope = f"s{number % 2}"
        for item in range(10):
            op = Op("create", "cards", f"{number}-{item}", card("t", board=scope))
            got[scope].append((await client.do(op, scope=scope)).seq)

    async with hub_on(home.store()) as hub:
        async with trio.open_nursery() as nursery:
            for number in range(32):
                nursery.start_soon(write, Client.of(hub, f"client{number}"), number)
        reader = Client.of(hub, "reader")
        assert sorted(got["s0"]) == sorted(got["s1"]) == list(range(1, 161))
        rows, end = await pull_all(reader, "s0", max_changes=7)
        assert (len(rows), end.seq) == (160, 160)


async def test_a_push_cancelled_after_it_began_is_completed_once(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        client.write(create("1"))
        with trio.move_on_after(0) as scope:
            await client.push()
        assert scope.cancelled_caught
        reply = await client.push()
        assert reply.outcomes[0].status == "applied"
        assert (await client.do(create("2"))).seq == 2


@pytest.mark.parametrize("number", [-1, 2**63, 2**64 - 1])
async def test_numbers_out_of_range_are_refused_and_block_nothing(number: int, home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        far = await client.do(create("1"), base=number)
        assert far.error is not None and far.error.code == "INVALID"
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: client.service.push(PushRequest(client.client_id, number, (), b"")),
            lambda: client.service.push(PushRequest(client.client_id, 1, (), b"", number)),
            lambda: client.pull(Cursor(b"", number, b"")),
            lambda: client.pull(after=number),
            lambda: client.service.push(PushRequest(client.client_id, 1, (), b"", 0, number)),
            lambda: client.service.pull(PullRequest(SCOPE, Cursor(), client.client_id, schema_version=number)),
            lambda: client.service.snapshot(SnapshotRequest(SCOPE, client.client_id, schema_version=number)),
            lambda: client.open(confirmed=number),
            lambda: client.open(tail=number),
            lambda: client.open(asked=[number]),
            lambda: client.open(places=[Place(SCOPE, Cursor(b"", number, b""))]),
            lambda: client.open(places=[Place(SCOPE, Cursor(), (Mark(number, b""),))]),
        ]
        for call in calls:
            with pytest.raises(RemoteError) as refused:
                await call()
            assert refused.value.remote_code == "MALFORMED"
        assert (await client.do(create("1"))).status == "applied"


async def test_text_that_cannot_be_stored_is_refused_by_name(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        service = Client.of(hub, "a").service
        bad = "\ud800"
        entries = (
            Op("create", "cards", "1", {"title": "t"}, scope=bad),
            Op("create", "cards", "1", {"title": bad}, scope=SCOPE),
        )
        for number, entry in enumerate(entries):
            result = await service.write(direct(entry, idem=f"k{number}"))
            assert result.items[0].error is not None and result.items[0].error.code == "INVALID"
        for entry, idem in (
            (Op("patch", "cards", bad, {"title": "t"}), "k"),
            (Op("create", "cards", bad, {"title": "t"}, scope=SCOPE), "k"),
            (Op("delete", "cards", "1", scope=SCOPE), bad),
        ):
            with pytest.raises(RemoteError, match="MALFORMED"):
                await service.write(direct(entry, idem=idem))
        with pytest.raises(RemoteError, match="QUERY"):
            await service.query(QueryRequest(by_ids("cards", (bad,)), OperationContext("t")))
        with pytest.raises(RemoteError, match="INVALID"):
            await service.pull(PullRequest(bad, Cursor(), b"x" * 16))


def refuse_bad_titles(path: Path) -> None:
    """What an operator may add to the file with any tool: a trigger that refuses some rows."""
    with closing(sqlite3.connect(path)) as connection:
        for event in ("INSERT", "UPDATE"):
            connection.execute(
                f"CREATE TRIGGER no_{event} BEFORE {event} ON cards WHEN NEW.title = 'bad' "
                "BEGIN SELECT RAISE(ABORT, 'the operator does not want this'); END"
            )
        connection.commit()


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_row_that_the_file_refuses_is_a_verdict_and_leaves_nothing_behind(place: int, tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with hub_on(path):
        pass
    refuse_bad_titles(path)
    async with hub_on(path) as hub:
        client = Client.of(hub, "a")
        titles = ["good", "good", "good"]
        titles[place] = "bad"
        for number, title in enumerate(titles):
            client.write(Op("create", "cards", f"{number}", card(title)))
        reply = await client.push()
        assert reply.error is None
        assert [outcome.status == "rejected" for outcome in reply.outcomes] == [title == "bad" for title in titles]
        refused = reply.outcomes[place].error
        assert refused is not None
        assert (refused.code, "operator" in refused.message) == ("CONSTRAINT", False)
        assert (await client.push()).outcomes == tuple(replace(outcome, duplicate=True) for outcome in reply.outcomes)
        assert (await client.do(Op("create", "cards", "9", card("good")))).seq == 3
        rows, end = await pull_all(client)
        assert (len(rows), end.seq) == (3, 3)
        patched = await client.do(Op("patch", "cards", "9", {"title": "bad"}), base=3)
        assert patched.status == "rejected"
        values: RowImage = {"title": "bad", "lane": "todo", "rank": 0.0, "done": 0, "board": SCOPE}
        entry = Op("create", "cards", "d", values, scope=SCOPE)
        (item,) = (await client.service.write(direct(entry, idem="a direct one"))).items
        assert item.error is not None
        assert item.error.code == "CONFLICT"


async def test_a_mutation_depends_on_an_earlier_one_of_its_client_only(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        for after_mid in (-1, 1, 2):
            client = Client.of(hub, f"client {after_mid}")
            outcome = await client.do(Op("create", "cards", "1", card("x"), after_mid=after_mid))
            assert outcome.error is not None
            assert (outcome.status, outcome.error.code) == ("rejected", "INVALID")
