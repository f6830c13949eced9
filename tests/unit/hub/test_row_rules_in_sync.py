"""Row rules where rows go to devices and come from them: pages, snapshots, verdicts, offers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from atoma.contracts.codec import encode
from atoma.contracts.execution import OperationContext, QueryRequest, ResolveRequest
from atoma.contracts.mutations import Op, OpKind, Recovers
from atoma.contracts.sync import Cursor, Hint, NotifyRequest, PullReply, SnapshotRequest
from atoma.errors import RemoteError
from atoma.hub import AllowLoopback, Caller, Hub, RowRule, open_hub
from atoma.hub.hub import open_for_upkeep
from atoma.ports.service import Principal
from atoma.schema import Convert, MigrationStep, Rename, Schema, StoreSpec
from atoma.schema.expressions import Condition, col
from atoma.testing.queries import rows_of
from tests.unit.hub.homes import Home, SQLiteHome
from tests.unit.hub.kit import Client, direct, pull_all, snapshot_page

CONTEXT = OperationContext("trace")


@dataclass(frozen=True)
class Note:
    id: str
    owner: str
    text: str = ""
    team: str | None = None


SCHEMA = Schema(
    StoreSpec("notes", Note, conflict="manual"),
    StoreSpec("mine", Note, conflict="client_wins"),
    StoreSpec("signed", Note, hub_fields=["team"]),
    StoreSpec("posts", Note),
)
ANN, BOB, CID = Principal("ann", {"team": "red"}), Principal("bob", {"team": "red"}), Principal("cid")
BOSS = Principal("boss", {"role": "boss"})


def rule(caller: Caller) -> Condition:
    return (col("owner") == caller.subject) | (col("team") == caller.claim("team")) | (caller.claim("role") == "boss")


RULES: Mapping[str, RowRule] = {"notes": rule, "mine": rule}


@asynccontextmanager
async def ruled(home: Home, rules: Mapping[str, RowRule] = RULES) -> AsyncIterator[Hub]:
    signed = {"signed": {"team": lambda of: of.principal.subject}}
    async with open_hub(SCHEMA, home.store(), verifier=AllowLoopback(), row_rules=rules, hub_fields=signed) as hub:
        yield hub


def device(hub: Hub, who: Principal, name: str = "") -> Client:
    return Client(hub.service(who), (name or f"device of {who.subject}").encode().ljust(16, b"."))


def note(owner: str, text: str = "", team: str | None = None) -> dict[str, Any]:
    return {"owner": owner, "text": text, "team": team}


def what(page: PullReply) -> dict[str, Any]:
    """Rows and deletes of a page: what they hold, None for those that are gone."""
    found: dict[str, Any] = {}
    for part in page.stores:
        found |= {str(id): dict(zip(part.columns[1:], values, strict=True)) for _, id, *values in part.rows}
        found |= {id: None for _, id in part.deletes}
    return found


async def test_a_page_has_what_is_seen_and_says_of_what_was_seen_that_it_is_gone(home: Home) -> None:
    async with ruled(home) as hub:
        boss, ann, cid = (device(hub, who) for who in (BOSS, ANN, CID))
        starts = [(await client.pull()).end for client in (ann, cid)]
        await boss.do(Op("create", "notes", "of-ann", note("ann")), Op("create", "notes", "of-bob", note("bob")))
        await boss.do(Op("create", "posts", "post", note("bob")))
        pages = [await client.pull(start) for client, start in zip((ann, cid), starts, strict=True)]
        assert [set(what(page)) for page in pages] == [{"of-ann", "post"}, {"post"}]
        assert [page.end.seq for page in pages] == [2, 2]
        await boss.do(Op("patch", "notes", "of-bob", {"team": "red", "text": "whole"}))  # enters
        await boss.do(Op("patch", "notes", "of-ann", {"owner": "cid"}))  # changes hands
        pages = [await client.pull(page.end) for client, page in zip((ann, cid), pages, strict=True)]
        assert what(pages[0]) == {"of-bob": note("bob", "whole", "red"), "of-ann": None}
        assert what(pages[1]) == {"of-ann": note("cid")}
        assert b"of-bob" not in encode(pages[1])
        await boss.do(Op("delete", "notes", "of-bob"), Op("delete", "notes", "of-ann"))
        pages = [await client.pull(page.end) for client, page in zip((ann, cid), pages, strict=True)]
        assert [what(page) for page in pages] == [{"of-bob": None}, {"of-ann": None}]
        # who comes late is told of each what it is in the end; of what has come and gone, that it is gone
        assert [what(await client.pull(start)) for client, start in zip((ann, cid), starts, strict=True)] == [
            {"post": note("bob"), "of-ann": None, "of-bob": None},
            {"post": note("bob"), "of-ann": None},
        ]


async def test_a_snapshot_has_what_is_seen_and_its_token_names_nothing_else(home: Home) -> None:
    async with ruled(home) as hub:
        boss, ann = device(hub, BOSS), device(hub, ANN)
        for number in range(6):
            await boss.do(
                Op(
                    "create",
                    "notes",
                    f"id-{number}-{'ann' if number % 2 else 'cid'}",
                    note("ann" if number % 2 else "cid"),
                )
            )
        found, token, done = dict[Any, Any](), b"", False
        while not done:
            rows, _, token, done = await snapshot_page(ann, token, max_rows=1)
            found |= rows
            assert b"-cid" not in token
            assert len(rows) == 1
        assert [id for _, id in found] == ["id-1-ann", "id-3-ann", "id-5-ann"]


async def test_what_was_staged_and_left_again_is_gone_with_the_log_behind_the_snapshot(home: Home) -> None:
    """A scan reads rows as they are; one may have come after its beginning, and be gone before the log is read."""
    async with ruled(home) as hub:
        boss, ann = device(hub, BOSS), device(hub, ANN)
        for id, owner in (("a", "ann"), ("b", "cid"), ("c", "ann")):
            await boss.do(Op("create", "notes", id, note(owner)))
        rows, start, token, _ = await snapshot_page(ann, max_rows=1)
        assert set(rows) == {("notes", "a")}
        await boss.do(Op("patch", "notes", "b", {"owner": "ann"}))
        rows, _, _, done = await snapshot_page(ann, token)
        assert (set(rows), done) == ({("notes", "b"), ("notes", "c")}, True)
        await boss.do(Op("patch", "notes", "b", {"owner": "cid"}))
        assert what(await ann.pull(start)) == {"b": None}, "in one page"
        one = await ann.pull(start, max_changes=1)
        assert what(await ann.pull(one.end, max_changes=1)) == {"b": None}, "and in pages of their own"


async def refused(asked: Any) -> str:
    with pytest.raises(RemoteError) as error:
        await asked
    return error.value.remote_code


async def test_a_position_is_about_what_its_principal_saw_there(home: Home) -> None:
    async with ruled(home) as hub:
        boss, ann = device(hub, BOSS), device(hub, ANN)
        await boss.do(
            Op("create", "notes", "red", note("cid", team="red")),
            Op("create", "notes", "blue", note("cid", team="blue")),
        )
        _, end = await pull_all(ann)
        _, _, token, _ = await snapshot_page(ann, max_rows=0)
        blue = device(hub, Principal("ann", {"team": "blue"}), "device of ann")
        assert await refused(blue.pull(end)) == "VIEW_CHANGED"
        asked = SnapshotRequest("main", blue.client_id, token)
        assert await refused(blue.service.snapshot(asked)) == "VIEW_CHANGED"
        assert await refused(ann.pull(replace(end, view=b""))) == "VIEW_CHANGED"
        rows, start, _, _ = await snapshot_page(blue)
        assert set(rows) == {("notes", "blue")}
        assert not (await blue.pull(start)).more
        more = Principal("ann", {"team": "red", "phone": "7"})  # a claim that no rule looks at
        assert not (await device(hub, more, "device of ann").pull(end)).stores
    async with ruled(home) as hub:
        assert not (await device(hub, ANN).pull(end)).stores, "the same rules give the same view"
    async with ruled(home, {"notes": lambda caller: col("owner") == caller.subject}) as hub:
        assert await refused(device(hub, ANN).pull(end)) == "VIEW_CHANGED"
    async with ruled(home, {}) as hub:
        assert await refused(device(hub, ANN).pull(end)) == "VIEW_CHANGED"
        plain = (await device(hub, ANN).pull()).end
        assert plain.view == b"", "where everything is seen there is nothing to tell"
    async with ruled(home) as hub:
        assert await refused(device(hub, ANN).pull(plain)) == "VIEW_CHANGED", "a rule that is new holds for old devices"


async def test_a_pushed_write_may_leave_the_rule_neither_before_nor_after(home: Home) -> None:
    async with ruled(home) as hub:
        boss, ann = device(hub, BOSS), device(hub, ANN)
        await boss.do(Op("create", "notes", "hidden", note("cid", "secret")), Op("create", "notes", "own", note("ann")))
        for op in (
            Op("patch", "notes", "hidden", {"text": "x"}),
            Op("delete", "notes", "hidden"),
            Op("replace", "notes", "hidden", note("ann")),
            Op("upsert", "notes", "hidden", note("ann")),
            Op("create", "notes", "hidden", note("ann")),
            Op("create", "notes", "new", note("cid")),
            Op("patch", "notes", "own", {"owner": "cid"}),
        ):
            outcome = await ann.do(op, base=1)
            assert outcome.error is not None and outcome.error.code == "DENIED", op
            assert b"secret" not in encode(outcome)
        assert (await ann.do(Op("patch", "notes", "own", {"owner": "cid", "team": "red"}), base=1)).status == "applied"


async def test_what_a_hidden_row_held_before_it_was_deleted_comes_back_with_nobodys_write(home: Home) -> None:
    async with ruled(home) as hub:
        boss, ann = device(hub, BOSS), device(hub, ANN)
        await boss.do(Op("create", "mine", "gone", note("cid", "secret")))
        await boss.do(Op("delete", "mine", "gone"))
        outcome = await ann.do(Op("patch", "mine", "gone", {"owner": "ann"}), base=1)
        assert outcome.error is not None and outcome.error.code == "NOT_FOUND"
        assert b"secret" not in encode((outcome, await ann.pull()))
        await boss.do(Op("create", "mine", "seen", note("ann", "mine")))
        await boss.do(Op("delete", "mine", "seen"))
        revived = await ann.do(Op("patch", "mine", "seen", {"text": "again"}), base=3)
        assert revived.status == "merged"


async def test_a_verdict_that_is_told_again_shows_its_row_to_who_sees_it_now(home: Home) -> None:
    async with ruled(home) as hub:
        boss, ann = device(hub, BOSS), device(hub, ANN)
        await boss.do(Op("create", "notes", "n", note("cid", "before", "red")))
        await boss.do(Op("patch", "notes", "n", {"text": "secret"}))
        outcome = await ann.do(Op("patch", "notes", "n", {"text": "mine"}), base=1)
        assert outcome.conflicts[0].current == note("cid", "secret", "red")
        key = "key-of-ann"
        written = await ann.service.write(direct(Op("patch", "notes", "n", {"owner": "bob"}), idem=key))
        assert written.items[0].row is not None
        moved = Client(hub.service(Principal("ann")), ann.client_id, 1, ann.digests, ann.mutations)
        told = [
            (await moved.push()).outcomes,
            (await moved.pull()).outcomes,
            [verdict.outcome for verdict in (await moved.open(asked=[1])).verdicts],
        ]
        for (again,) in told:
            assert (again.status, again.error) == ("rejected", outcome.error)
            assert [(conflict.id, conflict.current) for conflict in again.conflicts] == [("n", None)]
        (item,) = (await moved.service.write(direct(Op("patch", "notes", "n", {"owner": "bob"}), idem=key))).items
        assert (item.ok, item.row) == (True, None)
        resolved = await moved.service.resolve(ResolveRequest(key, CONTEXT))
        assert resolved.result is not None and resolved.result.items[0].row is None
        shown = [
            (await ann.push()).outcomes[0].conflicts[0].current,
            (await ann.service.resolve(ResolveRequest(key, CONTEXT))),
        ]
        assert b"secret" in encode(shown[0]) and b"secret" in encode(repr(shown[1]))


async def offered(client: Client) -> Recovers:
    page = await client.pull()
    while page.more:
        page = await client.pull(page.end)
    return Recovers(page.end.epoch, page.end.seq, page.end.hash, page.proof)


async def test_an_offer_keeps_to_the_rule_and_shows_nothing(home: Home) -> None:
    async with ruled(home) as hub:
        boss, ann = device(hub, BOSS), device(hub, ANN)
        await boss.do(Op("create", "notes", "hidden", note("cid", "secret")), Op("create", "notes", "own", note("ann")))
        at = await offered(ann)
        for op in (Op("replace", "notes", "hidden", note("ann")), Op("replace", "notes", "other", note("cid"))):
            outcome = await ann.do(op, base=1, recovers=at, epoch=at.epoch)
            assert outcome.error is not None and outcome.error.code == "DENIED"
            assert b"secret" not in encode(outcome)
        own = Op("replace", "notes", "own", note("ann", "as it was"))
        assert (await ann.do(own, base=1, recovers=at, epoch=at.epoch)).status == "applied"


async def test_who_sees_a_part_says_nothing_by_silence(home: Home) -> None:
    """A device that has seen more, and a part only, says that it was all: what it could not see is not taken for deleted."""
    async with ruled(home) as hub:
        boss, cid, ann = device(hub, BOSS), device(hub, CID), device(hub, ANN)
        await boss.do(Op("create", "posts", "p", note("boss")), Op("create", "notes", "kept", note("ann")))
        fork = (await boss.pull()).end
        await boss.do(Op("create", "notes", "x", note("cid")))
        earlier = await offered(cid)
        await boss.do(Op("create", "notes", "y", note("ann")))
        later = await offered(ann)

        async def bring(client: Client, place: Recovers, *ops: Op) -> str:
            outcome = await client.do(*ops, base=fork.seq, recovers=replace(place, last=not ops), epoch=fork.epoch)
            return outcome.status

        await boss.do(Op("delete", "notes", "x"), Op("delete", "notes", "y"), base=9)
        assert await bring(cid, earlier, Op("replace", "notes", "z", note("cid"))) == "applied"
        assert await bring(ann, later, Op("replace", "notes", "w", note("ann"))) == "applied"
        assert await bring(ann, later) == "applied", "this was all"
        assert await bring(cid, earlier, Op("replace", "notes", "v", note("cid"))) == "applied", "and yet it counts"
        assert await bring(ann, later, Op("delete", "notes", "kept")) == "superseded", "it may have left, not gone"
        rows = (await hub.service(BOSS).query(QueryRequest(rows_of("notes"), CONTEXT))).rows
        assert {row.id for row in rows} == {"kept", "v", "w", "z"}


async def test_deletions_that_are_allowed_without_the_rules_wait_for_them(tmp_path: Path) -> None:
    """An operator allows them while no hub runs; who sees a part still says nothing by silence."""
    home, hub_file = SQLiteHome(tmp_path), tmp_path / "hub.db"
    async with ruled(home) as hub:
        made = [Op("create", store, "x", note("cid")) for store in ("notes", "posts")]
        await device(hub, BOSS).do(*made)
        fork = (await device(hub, BOSS).pull()).end
    backup = hub_file.read_bytes()
    async with ruled(home) as hub:
        boss, seen = device(hub, BOSS, "boss 2"), [(store, note("cid", "seen")) for store in ("notes", "posts")]
        await boss.do(*[Op("patch", store, "x", {"text": "seen"}) for store, _ in seen], base=fork.seq)
        earlier = await offered(device(hub, CID))
        await boss.do(*[Op("delete", store, "x") for store, _ in seen], base=9)
        later = await offered(device(hub, ANN))
    hub_file.write_bytes(backup)

    async def rows(hub: Hub) -> dict[str, list[object]]:
        return {store: [row["text"] for row in (await device(hub, BOSS).query(store)).values()] for store, _ in seen}

    async with ruled(home) as hub:
        epoch = hub.identity.epoch
        assert epoch != fork.epoch, "it has found out by itself"
        for who, place, ops in (
            (CID, earlier, [Op("replace", store, "x", row) for store, row in seen]),
            (ANN, later, []),
        ):
            offer = replace(place, last=not ops)
            outcome = await device(hub, who, f"{who.subject} again").do(
                *ops, base=fork.seq, recovers=offer, epoch=epoch
            )
            assert outcome.status == "applied", outcome
        assert await rows(hub) == {"notes": ["seen"], "posts": ["seen"]}, "deletions are held back"
    async with open_for_upkeep(SCHEMA, home.store()) as upkeep:
        await upkeep.allow_deletes(fork.epoch)
        assert (await upkeep.epochs())[0].deletes
    async with ruled(home) as hub:
        assert await rows(hub) == {"notes": ["seen"], "posts": []}


async def test_a_rule_looks_at_what_the_hub_sets(home: Home) -> None:
    """Fields that are set at the hub are set before the row is held against its rule."""
    async with ruled(home, {"signed": lambda caller: (col("team") == caller.subject) & (col("owner") != "cid")}) as hub:
        ann, bob = device(hub, ANN), device(hub, BOB)
        assert (await ann.do(Op("create", "signed", "1", note("bob", team="bob")))).status == "applied"
        assert [len((await pull_all(client))[0]) for client in (ann, bob)] == [1, 0]
        outcome = await ann.do(Op("create", "signed", "2", note("cid")))
        assert outcome.error is not None and outcome.error.code == "DENIED"


async def test_hints_say_how_far_a_scope_is_and_nothing_else(home: Home) -> None:
    async with ruled(home) as hub:
        boss, cid = device(hub, BOSS), device(hub, CID)
        await boss.do(Op("create", "notes", "hidden", note("ann", "secret")))
        async with cid.service.notify(NotifyRequest(("main",))) as hints:
            assert await anext(hints) == Hint("main", 1)
        page = await cid.pull(Cursor())
        assert (page.stores, page.head, page.end.seq) == ((), 1, 1), "the cursor passes what is not seen"


@dataclass(frozen=True)
class Called:
    id: str
    holder: str
    text: str = ""
    team: str | None = None


@pytest.mark.parametrize(
    ("step", "seen"),
    [
        (Convert("notes.owner", str.upper, was=str), "VIEW_CHANGED"),
        (Convert("notes.text", str.upper, was=str), ""),
        (Rename("notes.owner", "holder"), ""),
    ],
    ids=["converted", "another", "renamed"],
)
async def test_a_view_is_another_one_where_a_step_has_converted_what_a_rule_looks_at(
    home: Home, step: MigrationStep, seen: str
) -> None:
    name = "holder" if isinstance(step, Rename) else "owner"
    schema = Schema(StoreSpec("notes", Called if name == "holder" else Note), version=2, steps={2: [step]})
    first, end = Schema(StoreSpec("notes", Note)), Cursor()
    for version, column in ((first, "owner"), (schema, name)):
        rules: Mapping[str, RowRule] = {"notes": lambda caller, of=column: col(of) == caller.subject}  # type: ignore[misc]
        async with open_hub(version, home.store(), verifier=AllowLoopback(), row_rules=rules) as hub:
            ann = device(hub, ANN)
            if version is first:
                await ann.do(Op("create", "notes", "of-ann", note("ann")))
                end = (await ann.pull()).end
            elif seen:
                assert await refused(ann.pull(end)) == seen
            else:
                assert not (await ann.pull(end)).stores


@dataclass(frozen=True)
class Plain:
    id: str
    owner: str
    text: str = ""


def of_team(caller: Caller) -> Condition:
    return col("team") == caller.claim("team")


async def test_a_verdict_of_before_there_was_the_field_that_a_rule_looks_at_is_told_without_its_row(home: Home) -> None:
    first = Schema(StoreSpec("notes", Plain, conflict="manual"))
    later = Schema(StoreSpec("notes", Note, conflict="manual"), version=2)
    async with open_hub(first, home.store(), verifier=AllowLoopback()) as hub:
        boss, ann = device(hub, BOSS), device(hub, ANN)
        await boss.do(Op("create", "notes", "n", {"owner": "cid", "text": "before"}))
        await boss.do(Op("patch", "notes", "n", {"text": "secret"}))
        outcome = await ann.do(Op("patch", "notes", "n", {"text": "mine"}), base=1)
        assert outcome.conflicts[0].current == {"owner": "cid", "text": "secret"}
    async with open_hub(later, home.store(), verifier=AllowLoopback(), row_rules={"notes": of_team}) as hub:
        (again,) = (await ann.on(hub, "ann").push()).outcomes
        assert (again.status, again.error) == ("rejected", outcome.error)
        assert [(conflict.id, conflict.current) for conflict in again.conflicts] == [("n", None)]


@pytest.mark.parametrize("kind", ["replace", "delete"])
async def test_an_offer_that_nothing_proves_is_refused_whether_it_brings_a_row_or_takes_it_away(
    home: Home, kind: OpKind
) -> None:
    """Of a store with a rule an absence is never brought; that says nothing of where an offer is from."""
    async with ruled(home) as hub:
        boss, ann = device(hub, BOSS), device(hub, ANN)
        await boss.do(Op("create", "notes", "own", note("ann")))
        at = replace(await offered(ann), proof=b"")
        op = Op(kind, "notes", "own", note("ann") if kind == "replace" else {})
        outcome = await ann.do(op, base=1, recovers=at, epoch=at.epoch)
        assert outcome.error is not None and outcome.error.code == "INVALID"
