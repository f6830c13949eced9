"""Live relations, joins and groups: from the call that writes to the new result at a reader, the durable commit included.

Beside them stands raw apsw, which commits and asks again what the change concerns.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from atoma import (
    Index,
    Schema,
    StoreSpec,
    belongs_to,
    count,
    count_of,
    has_many,
    open_client,
    select,
    sum_,
)
from atoma.query.builder import Query
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from benchmarks.live_cases import Files, followed
from benchmarks.measure import Row, Samples, each

PEOPLE, CARDS, COMMENTS = 1_000, 100_000, 400_000
PAIRS, ROUNDS = 150, 3


@dataclass(frozen=True, slots=True)
class Person:
    """A user."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Card:
    """A parent."""

    id: str
    title: str
    status: str
    author: str
    points: int
    made: int


@dataclass(frozen=True, slots=True)
class Comment:
    """A child."""

    id: str
    card: str
    text: str
    made: int


PERSON = StoreSpec("people", Person)
CARD = StoreSpec("cards", Card, indexes=[Index("status", "-made"), Index("author")])
COMMENT = StoreSpec("comments", Comment, indexes=[Index("card", "-made")])
SCHEMA = Schema(PERSON, CARD, COMMENT)
status, author = CARD.col(lambda card: card.status), CARD.col(lambda card: card.author)
points, card_id = CARD.col(lambda card: card.points), CARD.col(lambda card: card.id)
AUTHOR = belongs_to(CARD, PERSON, on=author)
COMMENTS_OF = has_many(CARD, COMMENT, on=COMMENT.col(lambda comment: comment.card))

NEWEST = select(CARD).where(status == "open").order_by("-made").limit(50)
BY_NAME = (
    select(CARD)
    .join(PERSON, author == PERSON.col(lambda person: person.id))
    .columns(PERSON.col(lambda person: person.name), count(), sum_(points))
    .group_by(PERSON.col(lambda person: person.name))
)
SQL = "SELECT * FROM cards WHERE status='open' ORDER BY made DESC, id LIMIT 50"
INSERT_CARD = "INSERT INTO cards VALUES (?, ?, ?, ?, ?, ?)"
INSERT_COMMENT = "INSERT INTO comments VALUES (?, ?, ?, ?)"


def _card(number: int) -> Card:
    return Card(
        f"card-{number:07}",
        f"Card {number}",
        ("open", "done")[number % 2],
        f"p{number % PEOPLE:04}",
        number % 7,
        number,
    )


def _comment(number: int) -> Comment:
    return Comment(f"comment-{number:07}", f"card-{number % CARDS:07}", "x" * 40, number)


def _raw(path: Path) -> apsw.Connection:
    raw = apsw.Connection(str(path))
    raw.pragma("journal_mode", "wal")
    raw.pragma("synchronous", "normal")
    raw.pragma("wal_autocheckpoint", 0)
    raw.execute(
        "CREATE TABLE people(id TEXT PRIMARY KEY, name TEXT) STRICT; CREATE TABLE cards(id TEXT PRIMARY KEY, title TEXT,"
        " status TEXT, author TEXT, points INTEGER, made INTEGER) STRICT; CREATE TABLE comments(id TEXT PRIMARY KEY,"
        " card TEXT, text TEXT, made INTEGER) STRICT; CREATE INDEX a ON cards(status, made DESC);"
        " CREATE INDEX b ON cards(author); CREATE INDEX c ON comments(card, made DESC)"
    )
    return raw


@asynccontextmanager
async def open_files(folder: Path) -> AsyncIterator[Files]:
    """Two files of the same rows."""
    people = [Person(f"p{number:04}", f"Person {number}") for number in range(PEOPLE)]
    cards, comments = list(map(_card, range(CARDS))), list(map(_comment, range(COMMENTS)))
    raw = _raw(folder / "relations-raw.db")
    with raw:
        raw.executemany("INSERT INTO people VALUES (?, ?)", [(each.id, each.name) for each in people])
        raw.executemany(
            INSERT_CARD, [(card.id, card.title, card.status, card.author, card.points, card.made) for card in cards]
        )
        raw.executemany(INSERT_COMMENT, [(each.id, each.card, each.text, each.made) for each in comments])
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(folder / "relations.db"))]) as client:
        await client.store(PERSON).insert_many(people)
        await client.store(CARD).insert_many(cards)
        await client.store(COMMENT).insert_many(comments)
        yield Files(raw, client)
    raw.close()


async def relations(folder: Path) -> list[Row]:
    """Every case over one set of files."""
    async with open_files(folder) as files:
        return [*await pairs(files), *await groups(files)]


async def pairs(files: Files) -> list[Row]:
    """W11: a row is added and removed again, and a reader of each of five queries is told both times."""
    newest = CARDS - 2
    on = f"card-{newest:07}"

    def cards(again: Callable[[], object]) -> Callable[[int], None]:
        def turn(_: int) -> None:
            number = CARDS + 2 * files.number()
            card = _card(number)
            files.write(INSERT_CARD, card.id, card.title, card.status, card.author, card.points, card.made)
            again()
            files.write("DELETE FROM cards WHERE id=?", card.id)
            again()

        return turn

    def comments(again: Callable[[], object]) -> Callable[[int], None]:
        def turn(_: int) -> None:
            number = COMMENTS + files.number()
            files.write(INSERT_COMMENT, f"comment-{number}", on, "new", number)
            again()
            files.write("DELETE FROM comments WHERE id=?", f"comment-{number}")
            again()

        return turn

    def asked(sql: str, *bindings: Any) -> Callable[[], object]:
        return lambda: files.raw.execute(sql, bindings).fetchall()

    page = "(SELECT * FROM cards WHERE status='open' ORDER BY made DESC, id LIMIT 50)"
    recent = (
        "SELECT * FROM (SELECT m.*, row_number() OVER (PARTITION BY card ORDER BY made DESC) AS n FROM comments m"
        f" WHERE card IN (SELECT id FROM {page})) WHERE n <= 3"
    )

    def recent_too() -> None:
        files.raw.execute(SQL).fetchall()
        files.raw.execute(recent).fetchall()

    def detail() -> None:
        files.raw.execute("SELECT * FROM cards WHERE id=?", (on,)).fetchall()
        files.raw.execute("SELECT * FROM comments WHERE card=? ORDER BY made DESC, id", (on,)).fetchall()

    card = files.client.store(CARD)
    comment = files.client.store(COMMENT)

    async def add_card(number: int) -> None:
        await card.insert(_card(CARDS + 2 * number))

    async def remove_card(number: int) -> None:
        await card.delete(_card(CARDS + 2 * number).id)

    async def add_comment(number: int) -> None:
        await comment.insert(Comment(f"comment-{COMMENTS + number}", on, "new", COMMENTS + number))

    async def remove_comment(number: int) -> None:
        await comment.delete(f"comment-{COMMENTS + number}")

    joined = f"SELECT c.*, p.* FROM {page} c LEFT JOIN people p ON p.id = c.author ORDER BY c.made DESC, c.id"
    counted = SQL.replace("*", "*, (SELECT count(*) FROM comments m WHERE m.card = cards.id)", 1)
    every = select(CARD).where(card_id == on).include(COMMENTS_OF, lambda found: found.order_by("-made"))
    cases: list[tuple[str, Query[Any], Callable[[int], None], Any, Any, str]] = [
        ("newest 50 open", NEWEST, cards(asked(SQL)), add_card, remove_card, "1.2"),
        ("and their authors", NEWEST.include(AUTHOR), cards(asked(joined)), add_card, remove_card, "1.2"),
        (
            "and how many comments",
            NEWEST.columns(card_id, count_of(COMMENTS_OF)),
            comments(asked(counted)),
            add_comment,
            remove_comment,
            "0.6",
        ),
        (
            "and 3 recent comments",
            NEWEST.include(COMMENTS_OF, lambda found: found.order_by("-made").limit(3)),
            comments(recent_too),
            add_comment,
            remove_comment,
            "0.6",
        ),
        ("one card with its comments", every, comments(detail), add_comment, remove_comment, "1.2"),
    ]
    rows: list[Row] = []
    for name, query, again, add, remove, bar in cases:
        samples = Samples()
        for _ in range(ROUNDS):
            samples.add("raw apsw, asked again", each(again, PAIRS))
            samples.add("live", await followed(files, query, PAIRS, add, remove))
        rows += samples.rows(f"W11 live {name}, a pair", "raw apsw, asked again", 1e6, "µs", {"live": f"W11 ≤ {bar}×"})
    return rows


async def groups(files: Files) -> list[Row]:
    """W7: cards by the name of their author, of a thousand; the points of one card change."""
    samples = Samples()
    group = "SELECT p.name, count(*), sum(c.points) FROM cards c JOIN people p ON p.id = c.author WHERE p.id = ? GROUP BY p.name"

    def again(number: int) -> None:
        card = _card(number * 37 % CARDS)
        files.write("UPDATE cards SET points=? WHERE id=?", files.number(), card.id)
        files.raw.execute(group, (card.author,)).fetchall()

    def whole(number: int) -> None:
        files.write("UPDATE cards SET points=? WHERE id=?", files.number(), _card(number).id)
        files.raw.execute(group.replace("WHERE p.id = ? ", "")).fetchall()

    async def ours(number: int) -> None:
        await files.client.store(CARD).update(_card(number * 37 % CARDS).id, points=number + 1_000)

    for _ in range(ROUNDS):
        samples.add("raw apsw, the group asked again", each(again, PAIRS))
        samples.add("raw apsw, asked again", each(whole, 3))
        samples.add("live", await followed(files, BY_NAME, PAIRS, ours))
    return samples.rows(
        "W7 live join and groups, 1,000 of 100k", "raw apsw, the group asked again", 1e6, "µs", {"live": "W7 ≤ 1.5×"}
    )
