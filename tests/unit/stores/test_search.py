"""Searching texts: the index finds what a look at every row finds, whatever was done to the rows and by whom."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, event, example, given, settings

from atoma import AllowLoopback, Environment, Schema, StoreSpec, col, open_client, open_hub, select
from atoma.client import Client
from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.mutations import Op
from atoma.errors import QueryError, SchemaError
from atoma.ports.service import Principal
from atoma.query import Rows, bind
from atoma.query.evaluate import evaluate
from atoma.query.plans import every_row
from atoma.query.searching import highlighted, parsed, resembles, snippet, words_of
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_stores.sqlite.engine import SQLiteLocalDatabase
from tests.unit.hub.kit import direct
from tests.unit.stores.test_statements import statements


@dataclass(frozen=True)
class Note:
    id: str
    title: str
    body: str | None = None
    board: str = "main"


NOTES = StoreSpec("notes", Note, search=["title", "body"])
PLAIN = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)
ROWS = [
    Note("a", "Green tea", "from the hills of Wörthersee"),
    Note("b", "Coffee", "black, no tea"),
    Note("c", "Berlin bears", None),
    Note("d", "Bern", "a bear in the arms, teaming"),
]
SEARCHES = {
    "a word": ("tea", "ab"),
    "of any case": ("COFFEE", "b"),
    "without its accent": ("worthersee", "a"),
    "with it": ("Wörthersee", "a"),
    "all of them": ("tea black", "b"),
    "a phrase": ('"green tea"', "a"),
    "a phrase the other way": ('"tea green"', ""),
    "a beginning": ("ber*", "cd"),
    "the beginning of a phrase": ('"no te"*', "b"),
    "without another": ("tea -black", "a"),
    "without a phrase": ('ber* -"a bear"', "c"),
    "either": ("coffee OR bears", "bc"),
    "either, and another": ("tea coffee OR green", "ab"),
    "in two fields": ("bern bear", "d"),
    "with signs between": ("no-tea!", "b"),
    "signs alone beside a word": ("tea ***", "ab"),
    "what nobody has": ("cocoa", ""),
}


IN_FIELDS_AND_NEARLY = {
    "a word in a field": ("title:tea", "a"),
    "a phrase in one, a word in any": ('title:"green tea" hills', "a"),
    "a beginning in one": ("body:te*", "bd"),
    "without a word in one": ("tea -title:tea", "b"),
    "one field or the other": ("title:coffee OR body:hills", "ab"),
    "in a field or anywhere": ("title:bears OR arms", "cd"),
    "nothing but what is not there": ("-title:tea -body:black", "cd"),
    "a colon that ends no field": ("arms:teaming", "d"),
    "exchanged letters": ("geren~", "a"),
    "a letter too few": ("bak~ OR cofee~", "b"),
    "near a word in quotes": ('title:"cofee"~ OR "blak"~', "b"),
    "two wrong ones in a long word": ("wortersse~", "a"),
    "one wrong one of two is not near": ("te~", ""),
    "near in a field": ("title:barn~", "d"),
    "without what is near": ("tea -blak~", "a"),
    "near nothing, or there": ("zzzz~ OR coffee", "b"),
}


@asynccontextmanager
async def opened(path: Path, spec: StoreSpec[Note] = NOTES) -> AsyncGenerator[Client]:
    async with open_client(Schema(spec), plugins=[LocalExecution(SQLiteEngine(path))]) as client:
        yield client


def found_by(text: str, spec: StoreSpec[Note] = NOTES) -> Rows[Note]:
    return select(spec).where(NOTES.matches(text))


async def ids(client: Client, text: str) -> str:
    return "".join([note.id for note in await client.query(found_by(text))])


@pytest.mark.paths
@pytest.mark.parametrize("what", SEARCHES)
async def test_a_search_finds(what: str, tmp_path: Path) -> None:
    text, expected = SEARCHES[what]
    async with opened(tmp_path / "a.db") as client:
        await client.store(NOTES).insert_many(ROWS)
        assert await ids(client, text) == expected


async def test_a_search_looks_into_fields_and_past_misspellings() -> None:
    async with opened(Path(":memory:")) as client:
        await client.store(NOTES).insert_many(ROWS)
        found = {what: await ids(client, text) for what, (text, _) in IN_FIELDS_AND_NEARLY.items()}
        assert found == {what: expected for what, (_, expected) in IN_FIELDS_AND_NEARLY.items()}


async def test_by_an_index_which_later_searches_get_as_well(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(path, PLAIN) as client:
        await client.store(PLAIN).insert_many(ROWS)
    async with opened(path) as client:
        assert await ids(client, "tea") == "ab"
        lines = [each.line for each in (await client.explain(found_by("tea"))).sources]
        assert lines == ["SEARCH notes USING PRIMARY KEY (id=?)"]
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute("SELECT count(*) FROM _atoma_fts_notes_map").fetchone() == (4,)
    other = StoreSpec("notes", Note, search=["title"])
    async with opened(path, other) as client:
        found = await client.query(select(other).where(other.matches("tea")))
        assert [note.id for note in found] == ["a"]


def integrity(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO _atoma_fts_notes(_atoma_fts_notes) VALUES('integrity-check')")
    rows, mapped = (
        connection.execute(f"SELECT count(*) FROM {table}").get for table in ("notes", "_atoma_fts_notes_map")
    )
    words = connection.execute("SELECT count(*) FROM _atoma_fts_notes_docsize").get
    assert rows == mapped == words
    connection.close()


RAW = {
    "a replacement": (
        "INSERT OR REPLACE INTO notes(id, title, board, _ver, _scope) VALUES('a', 'cocoa', 'main', 1, 'main')",
        "a",
    ),
    "one that was ignored": (
        "INSERT OR IGNORE INTO notes(id, title, board, _ver, _scope) VALUES('a', 'cocoa', 'main', 1, 'main')",
        "",
    ),
    "an insert": ("INSERT INTO notes(id, title, board, _ver, _scope) VALUES('z', 'cocoa', 'main', 1, 'main')", "z"),
    "an update": ("UPDATE notes SET body = 'cocoa' WHERE id IN ('b', 'c')", "bc"),
    "a deletion": ("DELETE FROM notes WHERE id <> 'c'", ""),
    "another id": ("UPDATE notes SET id = 'y', title = 'cocoa' WHERE id = 'd'", "y"),
}


@pytest.mark.parametrize("what", RAW)
async def test_what_other_tools_write_is_found_at_once(what: str, tmp_path: Path) -> None:
    sql, expected = RAW[what]
    path = tmp_path / "a.db"
    async with opened(path) as client:
        await client.store(NOTES).insert_many(ROWS)
        assert await ids(client, "cocoa") == ""
        with closing(apsw.Connection(str(path))) as database:  # that of sqlite3 would take this process's locks along
            database.execute(sql)
        assert await ids(client, "cocoa") == expected
        await client.store(NOTES).insert(Note("x", "cocoa"))
        assert await ids(client, "cocoa") == "".join(sorted(f"{expected}x"))
        left = [note.id for note in await client.query(select(NOTES))]
        assert await ids(client, "tea OR ber* OR cocoa OR coffee") == "".join(left)
    integrity(path)


WORDS = st.sampled_from(
    ["tea", "Tee", "té", "ber", "berry", "Bär", "ﬁn", "x1", "na\u0308he", "क्षि", "가", "1", "İ", "ß", "OR", "-"]
)
TEXTS = st.lists(WORDS, max_size=5).map(" ".join) | st.text('aAäéb -"*1', max_size=8)
ASKED = st.one_of(
    WORDS, WORDS.map(lambda word: f"{word[:2]}*"), st.tuples(WORDS, WORDS).map(lambda pair: f'"{pair[0]} {pair[1]}"'),
    st.tuples(WORDS, WORDS).map(lambda pair: f"{pair[0]} -{pair[1]}"), st.tuples(WORDS, WORDS).map(" OR ".join),
    st.lists(WORDS, min_size=1, max_size=3).map(" ".join), TEXTS, WORDS.map(lambda word: f"{word}~"),
    st.tuples(st.sampled_from(["title:", "body:", "-title:", "title:ber OR body:", "tea~ -body:"]), WORDS).map("".join),
    st.tuples(WORDS, WORDS).map(lambda pair: f"{pair[0]}~ -{pair[1]}~"),
)  # fmt: skip
STEP = st.tuples(st.sampled_from(["put", "put", "remove", "fail"]), st.sampled_from("abcdef"), TEXTS, st.none() | TEXTS)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(units=st.lists(st.lists(STEP, max_size=4), max_size=5), asked=st.lists(ASKED, min_size=1, max_size=8))
@example(
    units=[[("put", "a", "tea", None)], [("put", "a", "ber", "tea"), ("fail", "b", "", None)]], asked=["tea", "ber"]
)
@example(
    units=[[("put", "a", "tea", None)], [("remove", "a", "", None), ("put", "b", "ber", None)]], asked=["tea", "ber"]
)
async def test_the_index_finds_what_a_look_at_every_row_finds(units: list[list[Any]], asked: list[str]) -> None:
    async with SQLiteEngine(":memory:").open_database(SCHEMA, Environment(executor="inline"), frozenset()) as db:
        for unit in units:
            await run(db, unit)
        rows = (await db.read(every_row("notes"))).rows
        indexed = await db.sqlite.read(
            lambda connection: connection.execute("SELECT id FROM _atoma_fts_notes_map").fetchall()
        )
        assert sorted(str(id) for (id,) in indexed) == [row.id for row in rows]
        for text in asked:
            try:
                query = bind(found_by(text), SCHEMA)
            except QueryError:
                event("refused")
                continue
            expected = [row.id for row in evaluate(query, {"notes": rows})]
            event("something" if expected else "nothing")
            assert [row.id for row in (await db.read(query)).rows] == expected, text
            try:
                scan = bind(select(NOTES).where(col("title").matches(text) | (col("title").matches(text))), SCHEMA)
            except QueryError:
                assert text.startswith("-"), "of one field alone, something has to be wanted"
                continue
            assert [row.id for row in (await db.read(scan)).rows] == [row.id for row in evaluate(scan, {"notes": rows})]


async def run(db: SQLiteLocalDatabase, unit: Sequence[tuple[str, str, str, str | None]]) -> None:
    class Failed(Exception):
        pass

    def body(tx: Any) -> None:
        for what, id, title, body in unit:
            if what == "fail":
                raise Failed
            image = NOTES.encode(Note(id, title, body))[1] if what == "put" else None
            tx.rows.put("notes", id, "main", image)

    try:
        await db.apply(body)
    except Failed:
        event("rolled back")


async def test_a_hub_searches_what_may_be_read_and_nothing_else() -> None:
    spec = StoreSpec("notes", Note, scope="board", search=["title", "body"])
    schema = Schema(spec)

    class Boards:
        def scope_access(self, principal: Principal, scope: str) -> str:
            return "write" if principal.subject == "root" or scope == "red" else "none"

    async with open_hub(schema, SQLiteHubStore(":memory:"), verifier=AllowLoopback(), rules=Boards()) as hub:  # type: ignore[arg-type]
        for number, board in enumerate(["red", "blue"]):
            id, image = spec.encode(Note(f"{number}", "Green tea", board=board))
            await hub.service(Principal("root")).write(
                direct(Op("create", "notes", id, image, scope=board), idem=board)
            )
        for text in ("tea -black", "title:tea", "gren~ taa~"):
            asked = select(spec).where(spec.matches(text)).order_by(spec.rank(text).desc())
            for who, expected in (("root", ["0", "1"]), ("ann", ["0"])):
                request = QueryRequest(bind(asked, schema), OperationContext("t"))
                answer = await hub.service(Principal(who)).query(request)
                assert [row.id for row in answer.rows] == expected, text


WRONG = ["", "  ", "-tea", "OR tea", "tea OR", "tea OR OR coffee", "tea OR -coffee", "***", "tea " * 65, "x" * 1001]
WRONG += ["te~*", '"green tea"~']
WRONG += ["green-tea~", "te*~", "tea~ " * 9, "title:tea OR", "OR title:tea", "title:tea OR -coffee", "title:***"]


@pytest.mark.parametrize("text", WRONG)
def test_what_asks_for_nothing_or_too_much_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        bind(found_by(text), SCHEMA)


def test_what_is_found_is_shown() -> None:
    assert highlighted("tea", "Green Tea, and TEA.", "[", "]") == "Green [Tea], and [TEA]."
    assert highlighted("worth*", "Am Wörthersee", "<b>", "</b>") == "Am <b>Wörthersee</b>"
    assert highlighted('"green tea" -x', "green tea, tea", "[", "]") == "[green] [tea], tea"
    long = " ".join(f"w{number}" for number in range(100)) + " tea " + "x " * 50
    shown = snippet("tea", long, "[", "]", 8)
    assert shown == "…w98 w99 [tea] x x x x x…"
    assert snippet("tea", "green tea", "[", "]", 8) == "green [tea]"
    assert snippet("tea", "", "[", "]", 8) == ""
    assert words_of("Ångström’s  na\u0308ïve ﬁn") == ("angstrom", "s", "naive", "ﬁn")
    assert parsed("a b OR c -d").unwanted[0].words == ("d",)
    assert highlighted("gren~", "Green tea, groan", "[", "]") == "[Green] tea, groan"


def edits(one: str, other: str) -> int:
    """How many edits lead from one word to the other, by the table of all their beginnings."""
    table = {(at, to): at + to for at in range(len(one) + 1) for to in range(len(other) + 1) if not at or not to}
    for at in range(1, len(one) + 1):
        for to in range(1, len(other) + 1):
            steps = [
                table[at - 1, to] + 1,
                table[at, to - 1] + 1,
                table[at - 1, to - 1] + (one[at - 1] != other[to - 1]),
            ]
            if at > 1 and to > 1 and (one[at - 1], one[at - 2]) == (other[to - 2], other[to - 1]):
                steps.append(table[at - 2, to - 2] + 1)
            table[at, to] = min(steps)
    return table[len(one), len(other)]


@given(asked=st.text("abc", max_size=8), word=st.text("abc", max_size=9))
def test_words_resemble_one_another_by_so_many_edits(asked: str, word: str) -> None:
    allowed = 0 if len(asked) < 3 else 1 if len(asked) < 6 else 2
    assert resembles(asked, word) == (edits(asked, word) <= allowed)


async def test_rank_puts_first_what_has_the_words_more_often(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as client:
        await client.store(NOTES).insert_many([*ROWS, Note("e", "Tea tea", "tea")])
        query = found_by("tea").order_by(NOTES.rank("tea").desc())
        assert [note.id for note in await client.query(query)] == ["e", "a", "b"]
        title, body = NOTES.col(lambda note: note.title), NOTES.col(lambda note: note.body)
        shown = (
            select(NOTES)
            .where(NOTES.matches("bear*"))
            .columns(title.highlight("bear*"), body.snippet("bear*", words=3))
        )
        assert list(await client.query(shown)) == [("Berlin [bears]", None), ("Bern", "…[bear] in the…")]
        text = "title:tea hills"
        columns = (
            select(NOTES)
            .where(NOTES.matches(text))
            .columns(NOTES.rank(text), title.highlight(text), body.highlight(text))
        )
        (found,) = await client.query(columns)
        assert found == (2 / 2.2, "Green [tea]", "from the [hills] of Wörthersee")


async def test_a_search_of_some_of_the_fields_goes_by_the_index_too(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as client:
        await client.store(NOTES).insert_many(ROWS)
        query = select(NOTES).where(NOTES.col(lambda note: note.title).matches("tea~"))
        assert [note.id for note in await client.query(query)] == ["a"]
        lines = [each.line for each in (await client.explain(query)).sources]
        assert lines == ["SEARCH notes USING PRIMARY KEY (id=?)"]


def test_a_store_lists_fields_of_text() -> None:
    for wrong in (["nope"], ["id"], "title,body", 5):
        with pytest.raises(SchemaError, match="search= lists fields of text"):
            StoreSpec("notes", Note, search=wrong)  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="is not searched"):
        PLAIN.matches("tea")


async def test_rows_are_compared_with_the_index_only_when_others_have_written(tmp_path: Path) -> None:
    path, compared = tmp_path / "a.db", []
    async with SQLiteEngine(path).open_database(SCHEMA, Environment(), frozenset()) as db:
        await run(db, [("put", "a", "tea", None)])

        def note(cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
            compared.append("atoma_digest" in sql)
            return True

        await db.sqlite.transact(lambda connection: connection.set_exec_trace(note))
        with closing(apsw.Connection(str(path))) as database:
            database.execute("UPDATE notes SET body = 'milk'")
        for _ in range(5):
            await db.read(bind(found_by("milk"), SCHEMA))
        await db.sqlite.transact(lambda connection: connection.set_exec_trace(None))
    assert sum(compared) == 1


async def test_a_search_writes_nothing_unless_others_have_written(tmp_path: Path) -> None:
    path, begun = tmp_path / "a.db", []
    with statements() as told:
        async with SQLiteEngine(path).open_database(SCHEMA, Environment(), frozenset()) as db:
            await run(db, [("put", "a", "tea", None)])
            for script in ("", "UPDATE notes SET body = 'milk'", ""):
                with closing(apsw.Connection(str(path))) as database:
                    database.execute(script)
                del told[:]
                assert len((await db.read(bind(found_by("tea"), SCHEMA))).rows) == 1
                begun.append(told.count("BEGIN IMMEDIATE"))
    assert begun == [0, 1, 0]
