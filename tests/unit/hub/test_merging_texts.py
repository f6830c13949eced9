"""Texts that merge at a hub, over every store of hubs: what is taken, joined, and refused before anything looks at the row."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
import pytest
import trio

from atoma import Schema, StoreSpec
from atoma.contracts.codec import encode
from atoma.contracts.limits import TEXT_BYTES_MAX, TEXT_PIECES_MAX, TEXT_STATE_BYTES_MAX, TEXTS_MAX
from atoma.contracts.mutations import Edit, MutationBody, Op
from atoma.contracts.sync import Limits
from atoma.contracts.values import RowImage
from atoma.hub.admission import admit
from atoma.schema.texts import document, read, rewritten
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import SCOPE, Client, direct, hub_on
from tests.unit.hub.test_merging import push, row_of
from tests.unit.schema.test_texts import piece, state_of_pieces

pytest.importorskip("pycrdt", reason="the extra text is not installed")


@dataclass(frozen=True)
class Note:
    id: str
    title: str = ""
    body: str = ""
    body_state: bytes | None = None


SCHEMA = Schema(StoreSpec("notes", Note, merge={"body": "text"}))
BEGIN = document("one two", None)


def create(body: str, state: bytes | None = None) -> Op:
    return Op("create", "notes", "1", {"title": "", "body": body, "body_state": state})


def edit(state: object, field: str = "body_state", kind: Any = "text") -> Op:
    return Op("patch", "notes", "1", edits=(Edit(field, kind, state),))  # type: ignore[arg-type]


async def test_what_arrives_is_joined_whoever_comes_first_and_twice_is_once(home: Home) -> None:
    async with hub_on(home.store(), schema=SCHEMA) as hub:
        ann, bob = Client.of(hub, "ann"), Client.of(hub, "bob")
        await push(ann, create("one two"), base=0)
        mine, theirs = rewritten(BEGIN, "one, two"), rewritten(BEGIN, "two three")
        for client, state in ((ann, mine), (bob, theirs), (ann, mine)):
            taken = await push(client, edit(state), base=1)
            assert (taken.status, taken.conflicts) == ("applied", ())
        row = await row_of(hub, "notes")
        assert (row["body"], read(row["body_state"])) == (",two three", ",two three")
        doubtful = await push(bob, edit(mine), base=1, doubtful=True)
        assert doubtful.status == "applied"
        late = rewritten(theirs, "two three four")
        assert (await push(bob, edit(late), base=1, doubtful=True)).status == "applied", "twice it would be the same"
        assert (await row_of(hub, "notes"))["body"] == ",two three four"


async def test_who_does_not_know_the_row_or_its_rule_loses_nothing(home: Home) -> None:
    """An upsert with a state joins, a value of an older program replaces the text, and edits go on from it."""
    async with hub_on(home.store(), schema=SCHEMA) as hub:
        ann, bob = Client.of(hub, "ann"), Client.of(hub, "bob")
        await push(ann, create("one two"), base=0)
        values: RowImage = {"title": "t", "body": "mine", "body_state": document("mine", None)}
        await push(bob, Op("upsert", "notes", "1", values), base=0)
        assert (await row_of(hub, "notes"))["body"] in ("one twomine", "mineone two")
        await push(bob, Op("patch", "notes", "1", {"body": "plain"}), base=2)
        row = await row_of(hub, "notes")
        assert row["body"] == "plain"
        there = document(row["body"], row["body_state"])
        await push(ann, edit(rewritten(there, "plain!")), base=3)
        assert (await row_of(hub, "notes"))["body"] == "plain!"
        written = await ann.service.write(
            direct(Op("patch", "notes", "1", {"body": "plain text!"}, scope=SCOPE), idem="d")
        )
        assert written.items[0].ok and (await row_of(hub, "notes"))["body"] == "plain text!"


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (Op("patch", "notes", "1", {"body_state": None}), "one two, three four"),
        (Op("patch", "notes", "1", {"body_state": document("other", None)}), "one two, three four"),
        (Op("upsert", "notes", "1", {"body": "one two", "body_state": None}), "one two four"),
        (Op("replace", "notes", "1", {"title": "", "body": "one two"}), "one two four"),
    ],
)
async def test_who_writes_a_row_without_its_state_leaves_it_to_those_whose_edits_build_on_it(op: Op, text: str) -> None:
    """Without it, whatever they had in common was in the text twice."""
    async with hub_on(":memory:", schema=SCHEMA) as hub:
        ann, bob = Client.of(hub, "ann"), Client.of(hub, "bob")
        await push(ann, create("one two"), base=0)
        state = rewritten(BEGIN, "one two, three")
        await push(ann, edit(state), base=1)
        assert (await push(bob, op, base=2)).error is None
        await push(ann, edit(rewritten(state, "one two, three four")), base=3)
        row = await row_of(hub, "notes")
        assert (row["body"], read(row["body_state"])) == (text, text)


@pytest.mark.parametrize(
    ("op", "why"),
    [
        (edit(BEGIN[:-3]), "it is not the state of a text"),
        (edit(b""), "it is not the state of a text"),
        (edit("text"), "wants bytes"),
        (edit(None), "says nothing"),
        (edit([1]), "not a column value"),
        (edit(BEGIN, "body"), "does not take the edit 'text'"),
        (edit(BEGIN, "title"), "does not take the edit 'text'"),
        (edit(BEGIN, kind="max"), "does not take the edit 'max'"),
        (edit(document("x" * TEXT_STATE_BYTES_MAX, None)), "go on in a new row"),
        (Op("patch", "notes", "1", {"body": "x"}, edits=(Edit("body_state", "text", BEGIN),)), "written and edited"),
        (Op("patch", "notes", "1", {"body_state": b"\x01"}), "it is not the state of a text"),
    ],
)
async def test_edits_that_are_none_are_refused(op: Op, why: str) -> None:
    async with hub_on(":memory:", schema=SCHEMA) as hub:
        ann = Client.of(hub, "ann")
        await push(ann, create("one two"), base=0)
        refused = await push(ann, op, base=1)
        assert refused.error is not None
        assert refused.error.code == "INVALID" and why in refused.error.message, refused.error


async def test_a_text_that_grows_beyond_its_bound_is_refused_and_stays(home: Home) -> None:
    async with hub_on(home.store(), schema=SCHEMA) as hub:
        ann, bob = Client.of(hub, "ann"), Client.of(hub, "bob")
        half = "x" * (TEXT_BYTES_MAX // 2)
        await push(ann, create(half), base=0)
        refused = await push(bob, edit(document("y" * (len(half) + 1), None)), base=1)
        assert refused.error is not None and refused.error.code == "INVALID"
        assert "notes/1: body_state after text: notes.body merges, and has 49,153 bytes" in refused.error.message
        gone = rewritten(document("z" * (TEXT_STATE_BYTES_MAX - 1_000), None), "")
        assert len(gone) < 1_000, "what was deleted takes no room"
        assert (await row_of(hub, "notes"))["body"] == half


def edits(count: int) -> list[Op]:
    return [Op("patch", "notes", f"{number}", edits=(Edit("body_state", "text", BEGIN),)) for number in range(count)]


async def test_a_unit_merges_so_many_texts_and_no_more_at_every_door() -> None:
    """Each takes some milliseconds, and a unit is decided in one go."""
    why = f"an atomic unit merges {TEXTS_MAX + 1} texts, {TEXTS_MAX} at most; split it"
    async with hub_on(":memory:", schema=SCHEMA) as hub:
        ann = Client.of(hub, "ann")
        rows = [
            Op("create", "notes", f"{number}", {"title": "", "body": "one", "body_state": None}) for number in range(50)
        ]
        assert (await push(ann, *rows, base=0)).status == "applied", "a new row joins nothing"
        assert (await push(ann, *edits(TEXTS_MAX), base=1)).status == "applied"
        values: RowImage = {"title": "", "body": "one two", "body_state": BEGIN}
        more = Op("upsert", "notes", "40", values)
        for ops in (edits(TEXTS_MAX + 1), [*edits(TEXTS_MAX), more]):
            refused = await push(ann, *ops, base=2)
            assert refused.error is not None
            assert refused.error.code == "TOO_LARGE" and refused.error.message.endswith(why)
        plain = [Op("patch", "notes", f"{number}", {"body": "two"}, scope=SCOPE) for number in range(TEXTS_MAX + 1)]
        for ops in (plain, [msgspec.structs.replace(op, scope=SCOPE) for op in edits(TEXTS_MAX + 1)]):
            told = await ann.service.write(direct(*ops, idem=str(ops[0].values), atomic=True))
            errors = [item.error for item in told.items if item.error is not None]
            assert [error.message for error in errors if error.code == "TOO_LARGE"] == [why]
            assert len(errors) == len(ops), "all or none"
        told = await ann.service.write(direct(*plain, idem="one by one"))
        assert all(item.ok for item in told.items), "each is a unit of its own"


async def test_others_have_their_turn_between_the_texts_of_a_mutation() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    body = encode(MutationBody(1, "key", SCOPE, 0, 1, 0, tuple(edits(TEXTS_MAX))))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await admit(1, body, SCHEMA, Limits())
        nursery.cancel_scope.cancel()
    assert turns >= TEXTS_MAX // 2


async def test_a_text_that_was_edited_too_often_is_closed_and_its_row_goes_on(home: Home) -> None:
    """Nobody can add to it; it is read and found as before, and written anew in a row that is made anew."""
    async with hub_on(home.store(), schema=SCHEMA) as hub:
        ann, bob = Client.of(hub, "ann"), Client.of(hub, "bob")
        letters = state_of_pieces([(name, [piece("a")]) for name in range(1, TEXT_PIECES_MAX + 1)])
        whole = "a" * TEXT_PIECES_MAX
        await push(ann, create(whole, letters), base=0)
        for op in (edit(rewritten(letters, whole + "b")), edit(BEGIN)):
            refused = await push(bob, op, base=1)
            assert refused.error is not None and refused.error.code == "INVALID"
            assert "go on in a new row" in refused.error.message
        told = await ann.service.write(direct(Op("patch", "notes", "1", {"body": whole + "bc"}, scope=SCOPE), idem="1"))
        assert told.items[0].error is not None and "go on in a new row" in told.items[0].error.message
        await push(ann, Op("patch", "notes", "1", {"title": "long"}), base=1)
        row = await row_of(hub, "notes")
        assert (row["title"], row["body"], row["body_state"]) == ("long", whole, letters)
        await push(ann, Op("delete", "notes", "1"), create("short"), base=2)
        assert (await push(bob, edit(rewritten(document("short", None), "short!")), base=3)).status == "applied"
        assert (await row_of(hub, "notes"))["body"] == "short!"


async def test_random_bytes_get_a_verdict_and_the_hub_goes_on() -> None:
    random = Random(73)
    async with hub_on(":memory:", schema=SCHEMA) as hub:
        ann = Client.of(hub, "ann")
        await push(ann, create("one two"), base=0)
        for number in range(150):
            damaged = bytearray(rewritten(BEGIN, "one two three")[: random.randint(1, 60)])
            damaged[random.randrange(len(damaged))] = random.randrange(256)
            state = bytes(damaged) if number % 2 else random.randbytes(random.randint(0, 60))
            told = await push(ann, edit(state), base=1)
            assert told.status in ("applied", "rejected")
        await push(ann, edit(rewritten(BEGIN, "one two, at last")), base=1)
        assert "at last" in (await row_of(hub, "notes"))["body"]


def test_a_state_travels_as_bytes() -> None:
    body = msgspec.msgpack.encode(edit(BEGIN))
    assert msgspec.msgpack.decode(body, type=Op).edits[0].operand == BEGIN
