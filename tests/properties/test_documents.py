"""What stands in documents is the same in SQLite and in plain Python, and an index over a part of them is found."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, event, example, given, settings

from atoma import Index, Schema, StoreSpec, col, open_client, select
from atoma.contracts.query import Call, Col, Lit, Named, Plan, Store
from atoma.errors import QueryError
from atoma.ports import LocalTx, seeded_environment
from atoma.query.evaluate import evaluate
from atoma.query.normal import bind
from atoma.query.plans import every_row
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine


@dataclass
class Paper:
    id: str
    meta: dict[str, Any] | None
    tags: list[str] = field(default_factory=list)


PAPERS = StoreSpec("papers", Paper)
SCHEMA = Schema(PAPERS)
NAMES = st.sampled_from(["a", "b", "_", "a b", "é", "0"])
LEAVES = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1, 1e300, 0.1, -0.5, 1e-7])
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(" aéx\"\\\n1", max_size=4)
)  # fmt: skip
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
PATHS = st.lists(NAMES | st.integers(0, 3), max_size=3).map(
    lambda steps: "$" + "".join(f"[{step}]" if isinstance(step, int) else f'."{step}"' for step in steps)
)
READERS = st.sampled_from(["json_int", "json_real", "json_text", "json_bool"])
WANTED = st.integers(-5, 5) | st.sampled_from([2**63 - 1]) | st.text(" aéx1", max_size=2)


def shown(values: list[Any]) -> list[object]:
    return [
        None
        if each[0] is None
        else (type(each[0]).__name__, repr(each[0]))
        if not isinstance(each[0], bool)
        else int(each[0])
        for each in values
    ]


def whole(fn: str, values: list[Any]) -> list[object]:
    return (
        [each[0] if each[0] is None else int(each[0]) for each in values]
        if fn in ("json_bool", "json_has")
        else shown(values)
    )


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(
    documents=st.lists(st.none() | st.dictionaries(NAMES, DOCUMENTS, max_size=3), min_size=1, max_size=4),
    asked=st.lists(st.tuples(READERS, PATHS), min_size=1, max_size=6),
    wanted=st.lists(st.tuples(PATHS, WANTED), min_size=1, max_size=4),
)
@example(
    documents=[{"a": [1, True, "1", 1.0, None]}],
    asked=[("json_int", "$.a[1]"), ("json_real", "$.a[0]")],
    wanted=[("$.a", 1), ("$.a", "1")],
)
async def test_a_part_of_a_document_is_the_same(
    documents: list[dict[str, Any] | None], asked: list[tuple[str, str]], wanted: list[tuple[str, object]]
) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, seeded_environment(1), frozenset()) as db:
        images = [PAPERS.encode(Paper(str(number), document)) for number, document in enumerate(documents)]

        def body(tx: LocalTx) -> None:
            tx.base.put_many("papers", "main", ((id, image, 1) for id, image in images))

        await db.apply(body)
        rows = (await db.read(every_row("papers"))).rows
        document = Col(0, "meta")
        calls = [Call(fn, (document, Lit("", path))) for fn, path in asked]
        calls += [Call("json_has", (document, Lit("", path), Lit("", value))) for path, value in wanted]
        for call in calls:
            query = bind(Plan(Store("papers"), columns=(Named("c", call),)), SCHEMA.store)
            expected = whole(call.fn, evaluate(query, {"papers": rows}))
            event(f"{call.fn}: {'found' if any(expected) else 'nothing'}")
            assert whole(call.fn, list((await db.read(query)).tuples)) == expected, (call, json.dumps(documents))


WRONG = ["", "a", "$a", "$.", "$.a'b", '$."a\'b"', '$."', "$[-1]", "$[#-1]", "$.a.", "$" + ".a" * 200, 5]


@pytest.mark.parametrize("path", WRONG)
def test_what_is_no_path_is_refused(path: object) -> None:
    with pytest.raises(QueryError, match="a path in a document begins with"):
        bind(Plan(Store("papers"), where=Call("json_bool", (Col(0, "meta"), Lit("", path)))), SCHEMA.store)


async def test_lists_and_parts_are_asked_and_indexed(tmp_path: Any) -> None:
    meta, tags = PAPERS.col(lambda paper: paper.meta), PAPERS.col(lambda paper: paper.tags)
    size = meta.path("$.size", int)
    indexed = StoreSpec("papers", Paper, indexes=[Index(size)])
    rows = [
        Paper(f"{n:02}", {"size": n, "by": "ann" if n % 2 else "bob"}, ["red"] * (n % 2) + ["big"] * (n % 3))
        for n in range(40)
    ]
    async with open_client(Schema(indexed), plugins=[LocalExecution(SQLiteEngine(tmp_path / "a.db"))]) as client:
        await client.store(indexed).insert_many(rows)
        query = select(indexed).where(size == 7)
        assert [row.id for row in await client.query(query)] == ["07"]
        assert (await client.explain(query)).sources[0].index.startswith("_atoma_index_papers__")
        found = await client.query(select(indexed).where(size >= 38).order_by(size.desc()))
        assert [row.id for row in found] == ["39", "38"]
        assert await client.count(select(indexed).where(meta.path("$.by", str) == "ann")) == 20
        missing = await client.explain(select(indexed).where(meta.path("$.by", str) == "ann"))
        assert missing.warnings == ('papers: every row is read; add Index(col("meta").path("$.by", str))',)
        assert await client.count(select(indexed).where(tags.has("red"))) == 20
        assert await client.count(select(indexed).where(tags.any_of(["red", "big"]))) == sum(
            n % 2 + n % 3 > 0 for n in range(40)
        )
        assert await client.count(select(indexed).where(tags.all_of(["red", "big"]))) == sum(
            n % 2 * (n % 3) > 0 for n in range(40)
        )
        assert await client.count(select(indexed).where(col("tags").has("green") | col("meta").has(1, "$.none"))) == 0
