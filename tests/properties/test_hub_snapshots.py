"""Snapshot plus log tail is the state, whatever is written between the pages."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoma.contracts.mutations import Op
from atoma.contracts.sync import Cursor
from atoma.errors import RemoteError
from tests.unit.hub.kit import Client, Rows, apply_page, card, hub_on, snapshot_page

STORES = ("cards", "kept", "mine")
row = st.tuples(st.sampled_from(STORES), st.sampled_from("0123456789"))
writes = st.lists(st.tuples(row, st.sampled_from(["upsert", "delete"]), st.sampled_from("abc")), max_size=4)


@settings(max_examples=100)
@given(
    before=st.lists(row, max_size=20),
    between=st.lists(writes, max_size=12),
    page_rows=st.integers(1, 7),
    page_bytes=st.sampled_from([1, 60, 1 << 20]),
    tail_changes=st.integers(1, 5),
    compacted=st.sets(st.integers(0, 12), max_size=1),
)
async def test_a_snapshot_and_its_tail_are_the_state(
    before: list[tuple[str, str]],
    between: list[list[tuple[tuple[str, str], str, str]]],
    page_rows: int,
    page_bytes: int,
    tail_changes: int,
    compacted: set[int],
) -> None:
    async with hub_on(":memory:") as hub:
        writer, reader = Client.of(hub, "writer"), Client.of(hub, "reader")
        for store, id in before:
            await writer.do(Op("upsert", store, id, card("first")))
        rows: Rows = {}
        token, done, page_number = b"", False, 0
        start = Cursor()
        while not done:
            if token and start.seq < (await reader.open()).scopes[0].floor:
                with pytest.raises(RemoteError, match="SNAPSHOT_EXPIRED"):
                    await snapshot_page(reader, token, page_rows, page_bytes)
                rows, token = {}, b""
            page, start, token, done = await snapshot_page(reader, token, page_rows, page_bytes)
            assert not rows.keys() & page.keys()
            rows.update(page)
            for (store, id), kind, title in between[page_number] if page_number < len(between) else []:
                values = card(title) if kind == "upsert" else {}
                await writer.do(Op(kind, store, id, values), base=10**6)  # type: ignore[arg-type]
            if page_number in compacted and not done:
                await hub.compact(keep=0)
            page_number += 1
        tail = await reader.pull(start, max_changes=tail_changes)
        apply_page(rows, tail)
        while tail.more:
            tail = await reader.pull(tail.end, max_changes=tail_changes)
            apply_page(rows, tail)
        for store in STORES:
            assert {id: values for (name, id), values in rows.items() if name == store} == await reader.query(store)
