"""A regular expression finds in SQLite and in the reference what Python's ``re`` finds, where both have the words for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import event, given, settings

from atoma import Schema, StoreSpec
from atoma.contracts.query import Call, Col, Lit, Named, Plan, Store
from atoma.ports import LocalTx, seeded_environment
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma.query.plans import every_row
from atoma_stores.sqlite.engine import SQLiteEngine

pytest.importorskip("re2", reason="the extra regex is not installed")


@dataclass
class Thing:
    id: str
    t: str | None


THINGS = StoreSpec("things", Thing)
SCHEMA = Schema(THINGS)
LETTERS = "aAb1é _.\n\U0001f600"
ATOMS = st.sampled_from(
    [
        "a",
        "A",
        "b",
        "1",
        "é",
        " ",
        ".",
        r"\.",
        r"\d",
        r"\D",
        r"\w",
        r"\W",
        r"\s",
        "[ab]",
        "[^a]",
        "[A-b]",
        r"[\dé]",
        r"\n",
    ]
)
PARTS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "*?", "{0,2}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)
ENDS = st.sampled_from(["", "^", r"\b"]), st.sampled_from(["", "$", r"\b"])
PATTERNS = st.tuples(st.sampled_from(["", "(?i)", "(?s)"]), ENDS[0], PARTS, ENDS[1]).map("".join)
TEXTS = st.none() | st.text(LETTERS, max_size=8)


def expected(pattern: str, text: str | None) -> bool | None:
    """What Python says; its ``$`` is also before a line's end at the end of the text."""
    if text is None:
        return None
    ours = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
    return re.search(ours, text, re.ASCII) is not None


@settings(max_examples=150)
@given(patterns=st.lists(PATTERNS, min_size=1, max_size=8), texts=st.lists(TEXTS, min_size=1, max_size=6))
async def test_a_regular_expression_finds_what_it_finds_in_python(patterns: list[str], texts: list[str | None]) -> None:
    columns = tuple(
        [Named(f"c{n}", Call("regex", (Col(0, "t"), Lit("text", each)))) for n, each in enumerate(patterns)]
    )
    query = bind(Plan(Store("things"), columns=columns), SCHEMA.store)
    wanted = [tuple([expected(pattern, text) for pattern in patterns]) for text in texts]
    event("both" if {True, False} <= {value for row in wanted for value in row} else "one")
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:

        def body(tx: LocalTx) -> None:
            tx.base.put_many("things", "main", ((str(n), {"t": text}, 1) for n, text in enumerate(texts)))

        await db.apply(body)
        stored = list((await db.read(every_row("things"))).rows)
        assert [tuple(row) for row in (await db.read(query)).tuples] == wanted
        assert [tuple(row) for row in evaluate(query, {"things": stored})] == wanted
