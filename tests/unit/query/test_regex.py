"""Regular expressions as a condition: what is refused, what they cost at most, and who says that it does not know them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from atoma import col, open_client, select
from atoma.contracts.functions import FUNCTIONS
from atoma.contracts.limits import REGEX_STEPS_MAX
from atoma.contracts.query import Call, Col, Lit, Plan, Store
from atoma.errors import QueryError
from atoma.hub.reading import is_lookup
from atoma.ports import apply_batch
from atoma.ports.hub_queries import Fence
from atoma.query import bind
from atoma.query.normal import bind as bind_plan
from atoma.query.regex import looks, parsed
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.unit.hub.kit import hub_on
from tests.unit.stores.kit import CARDS, SCHEMA, Card, card, insert, opened

pytest.importorskip("re2", reason="the extra regex is not installed")

REFUSED = {
    "a group that is not closed": ("(tea", r"'\(tea' is no regular expression of RE2: missing \).*the syntax is RE2's"),
    "looking ahead": ("tea(?=s)", "invalid perl operator.*there is no looking ahead or behind"),
    "looking behind": ("(?<=green )tea", "invalid perl operator.*there is no looking ahead or behind"),
    "a reference back": (r"(a)\1", "invalid escape sequence.*nothing refers back to a group"),
    "the end as Python writes it": (r"tea\Z", r"invalid escape sequence.*ends at \\z"),
    "many repetitions": ("a{1001}", "invalid repetition size.*at most 1,000 times"),
    "many repetitions of repetitions": ("((a{100}){100}){100}", "invalid repetition size"),
    "a large program": (r"\pL{300}", "pattern too large.*repeat less often"),
    "a NUL": ("a\x00", "has no NUL"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_none_is_refused_where_it_stands(name: str) -> None:
    pattern, words = REFUSED[name]
    with pytest.raises(QueryError, match=words) as refused:
        bind(select(CARDS).where(col("lane") == "todo", col("title").regex(pattern)), SCHEMA)
    assert refused.value.path == "where › and[1] › regex"
    assert refused.value.hint


def test_it_looks_at_texts_and_is_a_value() -> None:
    with pytest.raises(QueryError, match="takes text, not 3"):
        col("title").regex(3)  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="takes a value, not something that is read"):
        bind_plan(Plan(Store("cards"), where=Call("regex", (Col(0, "title"), Col(0, "lane")))), SCHEMA.store)
    with pytest.raises(QueryError, match="a regular expression is text, not 'None'"):
        bind_plan(Plan(Store("cards"), where=Call("regex", (Col(0, "title"), Lit("null", None)))), SCHEMA.store)
    with pytest.raises(QueryError, match=r"regex\(\) cannot be asked of cards\.rank: it is asked of text"):
        bind_plan(Plan(Store("cards"), where=Call("regex", (Col(0, "rank"), Lit("text", "1")))), SCHEMA.store)


def test_patterns_that_never_end_elsewhere_end() -> None:
    """Python's own engine would be busy for years, and the run be ended as one that hangs."""
    cruel = ["(a+)+$", "(a|a)*c", "(a|b)*a(a|b){12}c", "(?:a?){30}a{30}c", "(x+x+)+y", "(.*)(.*)(.*)(.*)(.*)c"]
    text = "ab" * 20_000
    for pattern in cruel:
        assert not looks(text, pattern)


async def test_a_text_is_too_long_for_a_large_expression(tmp_path: Path) -> None:
    pattern = "[ab]*a[ab]{200}c"
    longest = parsed(pattern).longest
    assert 100_000 < longest < REGEX_STEPS_MAX / 200
    query = bind(select(CARDS).where(col("title").regex(pattern)), SCHEMA)
    async with opened(tmp_path / "a.db") as here:
        await here.write(insert("1", card("c" * longest)))
        assert not (await here.db.read(query)).rows
        await here.write(insert("2", card("c" * (longest + 1))))
        with pytest.raises(QueryError, match=f"texts of at most {longest:,} bytes, and one has {longest + 1:,}"):
            await here.db.read(query)


async def test_without_the_library_it_is_refused_and_not_among_what_a_hub_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = select(CARDS).where(col("title").regex("t[e]a"))
    async with hub_on(tmp_path / "with.db") as hub:
        assert set(hub.understood.functions) >= FUNCTIONS.keys()
    monkeypatch.setitem(sys.modules, "re2", None)
    parsed.cache_clear()
    with pytest.raises(QueryError, match=r"which is not installed.*pip install 'atoma-runtime\[regex\]'"):
        bind(query, SCHEMA)
    async with hub_on(tmp_path / "without.db") as hub:
        assert FUNCTIONS.keys() - set(hub.understood.functions) == {"regex"}


async def test_a_live_query_follows_it_without_asking_again(tmp_path: Path) -> None:
    query = select(CARDS).where(~col("title").regex(r"^tea \d")).order_by("id")
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(tmp_path / "a.db"))]) as client:
        cards = client.store(CARDS)
        await cards.insert_many([Card("1", "tea 1"), Card("2", "teas")])
        async with cards.live(query) as live:
            rows: tuple[Card, ...] = ()
            with trio.fail_after(30):
                rows = apply_batch(rows, await anext(live))
                assert [row.id for row in rows] == ["2"]
                await cards.update("1", title="tea one")
                rows = apply_batch(rows, await anext(live))
        assert [row.id for row in rows] == ["1", "2"]
        assert (await client.explain(query)).live.startswith("tier 0")


def test_what_is_computed_for_a_row_is_not_computed_on_the_loop_of_a_hub() -> None:
    fences = {"cards": Fence(("main",))}
    by_lane = select(CARDS).where(col("lane") == "todo")
    found = col("title").regex("t[e]a")
    assert is_lookup(bind(by_lane.order_by("rank"), SCHEMA), SCHEMA.store, fences)
    assert not is_lookup(bind(by_lane.where(found), SCHEMA), SCHEMA.store, fences)
    assert not is_lookup(bind(by_lane.order_by(found), SCHEMA), SCHEMA.store, fences)
