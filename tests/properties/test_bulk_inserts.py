"""Many inserts at once are the same as one after the other: rows, versions, errors at their places, and what is told of them.

``insert_many`` checks by column and writes in one statement as long as nothing is refused. The oracle never does: it calls
``insert`` for one row after the other, in a file of its own.
"""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Annotated, Any, cast

import trio
from hypothesis import event, given, settings
from hypothesis import strategies as st
from msgspec import Meta
from trio.testing import wait_all_tasks_blocked

from atoma import Client, Index, Schema, StoreSpec, open_client
from atoma.errors import AtomaError
from atoma.ports import apply_batch
from atoma.runtime.results import WriteHandle
from atoma.schema.hooks import Saved
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.paths import memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    id: str
    text: str
    short: Annotated[str, Meta(max_length=3)]
    number: int
    weight: float | None
    flag: bool
    place: str


GOOD = Item(id="", text="t", short="abc", number=1, weight=1.5, flag=True, place="p")
LAST = replace(GOOD, id="last", number=-2)
WRONG: list[tuple[str, object]] = [
    ("id", ""), ("id", "x" * 201), ("id", 7), ("text", "nul\x00"), ("text", "\ud800"), ("text", None), ("short", "abcd"),
    ("number", 2**63), ("number", True), ("weight", math.nan), ("weight", "1"), ("flag", 1), ("place", ""), ("place", 3),
]  # fmt: skip
ODD: list[tuple[str, object]] = [
    ("text", "é"),
    ("weight", None),
    ("weight", 3),
    ("weight", -0.0),
    ("place", "q"),
    ("flag", False),
]


@st.composite
def batches(draw: st.DrawFn) -> list[Item]:
    """Rows of which most are good, with ids that meet now and then, and mistakes at some places."""
    count = draw(st.integers(1, 60))
    items = [replace(GOOD, id=f"{number:02}", number=number) for number in range(count)]
    for name, value in draw(st.lists(st.sampled_from(draw(st.sampled_from([ODD, [*ODD, *WRONG]]))), max_size=3)):
        at = draw(st.integers(0, count - 1))
        items[at] = replace(items[at], **cast("Any", {name: value}))
    for at, other in draw(
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=draw(st.integers(0, 2)))
    ):
        copied = draw(st.sampled_from(["id", "number"]))
        items[at] = replace(items[at], **{copied: getattr(items[other], copied)})
    return items


Saves = list[tuple[str, Item | None]]


def store_of(scoped: bool, unique: bool, searched: bool, soft: bool, hooked: bool) -> tuple[StoreSpec[Item], Saves]:
    """A store with these, and what its hook is told."""
    saves: Saves = []

    def tell(saved: Saved[Item]) -> None:
        saves.append((saved.id, saved.after))

    spec = StoreSpec(
        "items",
        Item,
        scope="place" if scoped else "main",
        indexes=[Index("number", unique=True)] if unique else [Index("text", "number")],
        search=["text"] if searched else [],
        soft_delete=soft,
        after_save=tell if hooked else None,
    )
    return spec, saves


def said(error: AtomaError | None) -> object:
    return type(error), str(error)


def shown(handle: WriteHandle[Item]) -> object:
    return handle.id, handle.version, handle.changed, handle.value


async def opened(stack: AsyncExitStack, spec: StoreSpec[Item], first: str) -> Client:
    client = await stack.enter_async_context(
        open_client(Schema(spec), plugins=[LocalExecution(SQLiteEngine(memory()))])
    )
    await client.store(spec).insert(replace(GOOD, id=first, number=-1))
    return client


@settings(max_examples=50)
@given(batches(), st.tuples(*[st.booleans()] * 5), st.sampled_from(["there", "05"]))
async def test_many_at_once_are_the_same_as_one_after_the_other(
    items: list[Item], shape: tuple[bool, bool, bool, bool, bool], first: str
) -> None:
    (spec, saves), (other_spec, other_saves) = store_of(*shape), store_of(*shape)
    async with AsyncExitStack() as stack:
        many = (await opened(stack, spec, first)).store(spec)
        single = (await opened(stack, other_spec, first)).store(other_spec)
        followed = await stack.enter_async_context(many.live())
        seen = apply_batch((), await anext(followed))
        result = await many.insert_many(items)
        expected: list[object] = []
        for item in items:
            try:
                expected.append(shown(await single.insert(item)))
            except AtomaError as error:
                expected.append(said(error))
        assert [said(one.error) if one.handle is None else shown(one.handle) for one in result.items] == expected
        assert shown(await many.insert(LAST)) == shown(await single.insert(LAST)), "what is refused draws no version"
        rows, others = await many.query(), await single.query()
        assert (rows.items, rows.versions) == (others.items, others.versions)
        with trio.fail_after(60):
            while seen != rows.items:
                seen = apply_batch(seen, await anext(followed))
        await wait_all_tasks_blocked()
        assert saves == other_saves
        event(f"{result.status}: {'by columns' if result.status == 'confirmed' else 'some are refused'}")
