"""Columns that merge by themselves, and by clocks, against a model: random writes by several clients, each far behind or near.

The model keeps every write that was taken, and reads what a row is off that list; it shares no code with the hub. The devices of
the second test have their own files and outboxes, and are apart and together at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoma import Excluding, Including, Increment, Schema, StoreSpec
from atoma.contracts.codec import encode
from atoma.contracts.mutations import Edit, MutationBody, Op
from atoma.contracts.sync import Outcome
from atoma.testing.world import open_world
from tests.unit.hub.kit import SCOPE, Client, hub_on, pull_all


@dataclass(frozen=True)
class Poll:
    id: str
    title: str = ""
    note: str = ""
    votes: int = 0
    tags: set[str] = field(default_factory=set[str])
    best: int = 0
    least: int = 0


POLLS = StoreSpec(
    "polls",
    Poll,
    merge={
        "note": "lww_hlc", "title": "server_wins", "votes": "counter", "tags": "set", "best": "max", "least": "min",
    },
)  # fmt: skip
SCHEMA = Schema(POLLS)
START: dict[str, Any] = {"title": "", "note": "", "votes": 0, "tags": "[]", "best": 0, "least": 0}
AUTHORS = ("ann", "bob", "cid")


@dataclass(frozen=True)
class Wish:
    """A write as somebody makes it: what it does, how far behind they are, and when, by their clock."""

    author: str
    behind: int
    at_ms: int
    what: str
    value: Any


@dataclass
class Taken:
    """A write that the hub took: the number it got, and the elements that it put where they were not."""

    seq: int
    wish: Wish
    added: frozenset[str] = frozenset()


@dataclass
class Model:
    head: int = 1
    taken: list[Taken] = field(default_factory=list[Taken])

    def concurrent(self, wish: Wish) -> list[Taken]:
        base = self.head - wish.behind
        return [one for one in self.taken if one.seq > base and one.wish.author != wish.author]

    def take(self, wish: Wish) -> str:
        """The status that the hub has to answer."""
        before = self.row()
        met = [one for one in self.concurrent(wish) if one.wish.what == wish.what]
        if wish.what == "remove":
            stays = {element for one in self.concurrent(wish) for element in one.added}
            wish = Wish(wish.author, wish.behind, wish.at_ms, "remove", wish.value - stays)
        if wish.what in ("title", "note") and wish.value == before[wish.what]:
            return "applied"
        if met and wish.what == "title":
            return "rejected"
        if wish.what == "note" and any((one.wish.at_ms, one.wish.author) > (wish.at_ms, wish.author) for one in met):
            return "rejected"
        added = wish.value - before["tags"] if wish.what == "add" else frozenset()
        self.taken.append(Taken(self.head + 1, wish, frozenset(added)))
        if self.row() == before:
            self.taken.pop()
        else:
            self.head += 1
        return "merged" if met and wish.what == "note" else "applied"

    def row(self) -> dict[str, Any]:
        def values(what: str) -> list[Any]:
            return [one.wish.value for one in self.taken if one.wish.what == what]

        tags: set[str] = set()
        for one in self.taken:
            if one.wish.what == "add":
                tags |= one.wish.value
            elif one.wish.what == "remove":
                tags -= one.wish.value
        return {
            "title": (values("title") or [""])[-1],
            "note": (values("note") or [""])[-1],
            "votes": sum(values("votes")),
            "tags": tags,
            "best": max([0, *values("best")]),
            "least": min([0, *values("least")]),
        }


NUMBERS = st.integers(-9, 9)
TAGS = st.frozensets(st.sampled_from("xy"), min_size=1, max_size=2)
SETS = st.tuples(st.sampled_from(["add", "remove"]), TAGS)
TEXTS = st.tuples(st.sampled_from(["title", "note", "note", "note"]), st.sampled_from("abc"))
WHAT = st.one_of(st.tuples(st.sampled_from(["votes", "best", "least"]), NUMBERS), SETS, SETS, SETS, TEXTS, TEXTS)
"""What merges by the log, and by clocks, more often: that is where bugs are."""
WISHES = st.builds(
    lambda author, behind, at_ms, what: Wish(author, behind, at_ms, *what),
    st.sampled_from(AUTHORS),
    st.integers(0, 8),
    st.integers(0, 2),
    WHAT,
)


def text(elements: frozenset[str]) -> str:
    return msgspec.json.encode(sorted(elements)).decode()


def op_of(wish: Wish) -> Op:
    match wish.what:
        case "votes":
            edit = Edit("votes", "inc", wish.value)
        case "best":
            edit = Edit("best", "max", wish.value)
        case "least":
            edit = Edit("least", "min", wish.value)
        case "add":
            edit = Edit("tags", "add", text(wish.value))
        case "remove":
            edit = Edit("tags", "remove", text(wish.value))
        case name:
            return Op("patch", "polls", "1", {name: wish.value})
    return Op("patch", "polls", "1", edits=(edit,))


async def push(client: Client, op: Op, *, base: int, at_ms: int = 0) -> Outcome:
    mid = len(client.mutations) + 1
    body = MutationBody(mid, f"{client.client_id!r}:{mid}", SCOPE, base, 1, at_ms, (op,))
    mutation = client.write(base=base, body=encode(body))
    reply = await client.push(mutation.mid)
    assert reply.error is None, reply.error
    return reply.outcomes[0]


@pytest.mark.parametrize("batch", [1, 4])
@settings(max_examples=25)
@given(st.lists(WISHES, min_size=6, max_size=24))
async def test_rows_and_verdicts_are_the_models(batch: int, wishes: list[Wish]) -> None:
    """Also when several writes of one client are decided in one group, on what the earlier ones have left."""
    model = Model()
    async with hub_on(":memory:", schema=SCHEMA) as hub:
        clients = {name: Client.of(hub, name) for name in AUTHORS}
        begun = await push(Client.of(hub, "zoe"), Op("create", "polls", "1", START), base=0)
        assert begun.seq == 1
        for start in range(0, len(wishes), batch):
            of_one = [
                Wish(wishes[start].author, w.behind, w.at_ms, w.what, w.value) for w in wishes[start : start + batch]
            ]
            client = clients[of_one[0].author]
            first, expected = len(client.mutations) + 1, list[str]()
            for wish in of_one:
                mid, base = len(client.mutations) + 1, max(1, model.head - wish.behind)
                wish = Wish(wish.author, model.head - base, wish.at_ms, wish.what, wish.value)
                body = MutationBody(mid, f"{wish.author}:{mid}", SCOPE, base, 1, wish.at_ms, (op_of(wish),))
                client.write(body=encode(body))
                expected.append(model.take(wish))
            reply = await client.push(first)
            assert reply.error is None
            assert [outcome.status for outcome in reply.outcomes] == expected, of_one
        rows, end = await pull_all(Client.of(hub, "reader"))
        row: dict[str, Any] = dict(rows["polls", "1"])
        row["tags"] = set(msgspec.json.decode(row["tags"]))
        assert (row, end.seq) == (model.row(), model.head)


def device_writes(random: Random) -> Iterator[tuple[str, Any]]:
    """What a user does to the poll; a counter is also written by value, as a form does it."""
    while True:
        yield random.choice(
            [
                ("votes", Increment(random.randint(-3, 5))),
                ("by one", 1),
                ("tags", Including(random.choice("xyz"))),
                ("tags", Excluding(random.choice("xyz"))),
                ("best", random.randint(-5, 50)),
                ("least", random.randint(-50, 5)),
            ]
        )


@pytest.mark.virtual_time
@pytest.mark.parametrize("seed", range(4))
async def test_devices_that_were_apart_end_alike_and_no_increment_is_lost_or_doubled(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    votes = best = least = 0
    async with open_world(SCHEMA, tmp_path, seed=seed) as world, world.hub():
        async with world.device("a") as a, world.device("b") as b, world.device("c") as c:
            devices = [a, b, c]
            await a.client.store(POLLS).insert(Poll("1"))
            await world.settle()
            for _, (name, value) in zip(range(40), device_writes(random), strict=False):
                device = random.choice(devices)
                if random.random() < 0.3:
                    (device.unplug if random.random() < 0.6 else device.plug_in)()
                polls = device.client.store(POLLS)
                if name == "by one":
                    await polls.update("1", lambda poll: Poll(**{**vars(poll), "votes": poll.votes + 1}))
                    votes += 1
                    continue
                await polls.update("1", **{name: value})
                votes += value.amount if name == "votes" else 0
                best = max(best, value) if name == "best" else best
                least = min(least, value) if name == "least" else least
            for device in devices:
                device.plug_in()
            await world.settle()
            rows = [await device.client.store(POLLS).get("1") for device in devices]
            assert rows[0] == rows[1] == rows[2]
            assert rows[0] is not None
            assert (rows[0].votes, rows[0].best, rows[0].least) == (votes, best, least)
            assert [await device.client.sync.inbox.entries() for device in devices] == [[], [], []]
