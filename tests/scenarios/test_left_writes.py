"""Writes that other programs leave in a hub's PostgreSQL by ``atoma.write()``, in their own transactions."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import trio
import trio.lowlevel

from atoma import AllowLoopback, Index, Schema, StoreSpec, open_hub
from atoma.hub import Access, Hub, intake
from atoma.ports.service import Principal
from atoma_stores.sql.dialect import HUB_SCHEMA
from tests.postgres import server
from tests.unit.hub.homes import PostgreSQLHome
from tests.unit.hub.kit import Client, hub_on, pull_all

psycopg = pytest.importorskip("psycopg", reason="the extra postgres is not installed")


@dataclass(frozen=True, slots=True)
class Card:
    id: str
    title: str
    board: str
    place: str | None = None
    done: bool = False
    weight: float = 0.0
    made: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    picture: bytes = b""
    tags: tuple[str, ...] = ()


CARDS = StoreSpec("cards", Card, scope="board", indexes=[Index("place", unique=True)])
KEPT = StoreSpec("kept", Card, scope="board", soft_delete=True)
SCHEMA = Schema(CARDS, KEPT, version=1)


class Place:
    """A database of a hub, and a role of another program's.

    Args:
        pg: Its database.
        role: The program's role.
    """

    def __init__(self, pg: PostgreSQLHome, role: str) -> None:
        self.pg, self.role = pg, role

    def connect(self) -> Any:
        return psycopg.connect(self.pg.address().replace("//atoma@", f"//{self.role}@"))

    async def answer(self, key: str) -> dict[str, Any]:
        """The answer to a write, once there is one."""
        with self.connect() as connection, trio.fail_after(60):
            connection.autocommit = True
            while True:
                ((found,),) = connection.execute("SELECT atoma.answer(%s)", (key,)).fetchall()
                if found is not None:
                    return dict(found)
                await trio.sleep(0.01)

    def rows(self) -> list[tuple[Any, ...]]:
        return self.pg.ask('SELECT id, title, done, weight, picture FROM atoma.cards ORDER BY id COLLATE "C"')


@pytest.fixture
def place() -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        pg = PostgreSQLHome(stack)
        role = pg.address().partition("@/")[2].partition("?")[0] + "_app"
        server().sql(f"CREATE ROLE {role} LOGIN")
        yield Place(pg, role)


@contextlib.asynccontextmanager
async def hub_of(place: Place, **rules: Any) -> AsyncGenerator[Hub]:
    async with hub_on(place.pg.store(), schema=SCHEMA, **rules) as hub:
        place.pg.ask(f"GRANT USAGE ON SCHEMA atoma TO {place.role}")
        place.pg.ask(
            f"GRANT EXECUTE ON FUNCTION atoma.write(text, text, text, text, jsonb, text), atoma.answer(text) TO {place.role}"
        )
        yield hub


async def test_a_write_comes_with_the_rows_of_its_program_or_goes_with_them(place: Place) -> None:
    place.pg.ask("CREATE TABLE orders(id text)")
    place.pg.ask(f"GRANT ALL ON orders TO {place.role}")
    async with hub_of(place) as hub:
        with place.connect() as connection:
            connection.execute("INSERT INTO orders VALUES('1')")
            values = {"title": "tea", "done": True, "weight": 2, "picture": "\\x00ff", "tags": ["a", "b"]}
            sql = "SELECT atoma.write('main', 'cards', 'insert', 'c1', %s::jsonb)"
            ((key,),) = connection.execute(sql, (json.dumps(values),)).fetchall()
            assert connection.execute("SELECT atoma.answer(%s)", (key,)).fetchall() == [(None,)]
            connection.commit()
            connection.execute("INSERT INTO orders VALUES('2')")
            connection.execute("SELECT atoma.write('main', 'cards', 'insert', 'c2', '{\"title\": \"never\"}')")
            connection.rollback()
        assert await place.answer(key) == {"ok": True, "changed": True, "version": 1}
        assert place.rows() == [("c1", "tea", 1, 2.0, b"\x00\xff")]
        assert place.pg.ask("SELECT id FROM orders") == [("1",)]
        rows, _ = await pull_all(Client.of(hub, "reader"), "main")
        assert [image["tags"] for image in rows.values()] == ['["a","b"]']


async def test_what_is_wrong_is_answered_like_a_write_of_anybodys(place: Place) -> None:
    async with hub_of(place):
        wanted = {
            "first": ("insert", "c0", {"title": "t", "place": "window"}, None),
            "taken": ("insert", "c1", {"title": "a", "place": "window"}, "CONFLICT"),
            "none": ("update", "nobody", {"title": "a"}, "NOT_FOUND"),
            "twice": ("insert", "c0", {"title": "a"}, "CONFLICT"),
            "field": ("update", "c0", {"colour": "red"}, "INVALID"),
            "type": ("update", "c0", {"title": 3}, "INVALID"),
        }
        with place.connect() as connection:
            for key, (op, id, values, _) in wanted.items():
                connection.execute(
                    "SELECT atoma.write('main', 'cards', %s, %s, %s::jsonb, %s)", (op, id, json.dumps(values), key)
                )
        for key, (*_, code) in wanted.items():
            answer = await place.answer(key)
            assert (answer["ok"], answer.get("code")) == (code is None, code), (key, answer)
        assert [row[0] for row in place.rows()] == ["c0"]


def left(connection: Any, id: str, title: str, key: str = "", *, scope: str = "main") -> str:
    sql = "SELECT atoma.write(%s, 'cards', 'upsert', %s, %s::jsonb" + (", %s)" if key else ")")
    given = (scope, id, json.dumps({"title": title}), *([key] if key else []))
    ((told,),) = connection.execute(sql, given).fetchall()
    return str(told)


async def test_a_key_is_for_one_write_however_often_it_is_tried(place: Place) -> None:
    async with hub_of(place):
        with place.connect() as connection:
            connection.autocommit = True
            left(connection, "c1", "first", "k")
            left(connection, "c1", "first", "k")
            assert (await place.answer("k"))["version"] == 1
            left(connection, "c1", "second", "k2")
            assert (await place.answer("k2"))["version"] == 2
            left(connection, "c1", "first", "k")  # also when it has long been answered
            with pytest.raises(psycopg.errors.UniqueViolation, match="the key k was used for another write"):
                left(connection, "c1", "other", "k")
        assert place.rows()[0][1] == "second"
        assert (await place.answer("k"))["version"] == 1


@pytest.mark.parametrize("count", [1, 3])
async def test_the_writes_of_a_session_are_decided_in_their_order(place: Place, count: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        hub = await stack.enter_async_context(hub_of(place))
        for _ in range(count - 1):
            await stack.enter_async_context(hub_on(place.pg.store(), schema=SCHEMA))
        with place.connect() as connection:
            connection.autocommit = True
            for number in range(60):
                left(connection, f"c{number % 3}", str(number), f"k{number}", scope=f"s{number % 2}")
                await trio.lowlevel.checkpoint()
        answers = [await place.answer(f"k{number}") for number in range(60)]
        for which in range(2):
            versions = [answer["version"] for answer in answers[which::2]]
            assert versions == list(range(1, 31))
        rows, end = await pull_all(Client.of(hub, "reader"), "s0")
        assert end.seq == 30
        assert sorted(str(image["title"]) for image in rows.values()) == ["54", "56", "58"]


async def test_a_write_that_cannot_be_decided_holds_up_its_own_scope_only(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of that scope wait behind it than are taken at a time."""
    monkeypatch.setattr(intake, "AT_ONCE", 5)
    broken = True

    class Broken:
        def scope_access(self, principal: Principal, scope: str) -> Access:
            if scope == "held" and broken:
                raise RuntimeError("planned")
            return "write"

    async with hub_of(place, rules=Broken()):
        with place.connect() as connection:
            for number in range(12):
                left(connection, f"h{number}", "held", f"h{number}", scope="held")
            connection.commit()
            for number in range(12):
                left(connection, f"f{number}", "free", f"f{number}", scope="free")
        for number in range(12):
            assert (await place.answer(f"f{number}"))["ok"] is True
        with place.connect() as connection:
            assert connection.execute("SELECT atoma.answer('h0')").fetchall() == [(None,)]
        broken = False
        for number in range(12):
            assert (await place.answer(f"h{number}"))["ok"] is True


async def test_a_hub_that_ends_between_the_decision_and_the_answer_decides_once(place: Place) -> None:
    async with hub_of(place) as hub:
        name = f"{HUB_SCHEMA}.intake"
        place.pg.ask(f"ALTER TABLE {name} ADD CONSTRAINT never CHECK (answer IS NULL)")  # it cannot be kept
        with place.connect() as connection:
            left(connection, "c1", "once", "k")
        reader = Client.of(hub, "reader")
        with trio.fail_after(60):
            while not (await pull_all(reader, "main"))[0]:
                await trio.sleep(0.01)
    place.pg.ask(f"ALTER TABLE {name} DROP CONSTRAINT never")
    async with hub_on(place.pg.store(), schema=SCHEMA) as hub:
        assert await place.answer("k") == {"ok": True, "changed": True, "version": 1}
        _, end = await pull_all(Client.of(hub, "reader"), "main")
        assert end.seq == 1


class Only:
    """Rules by which a subject may write in the scope of its own name."""

    def scope_access(self, principal: Principal, scope: str) -> Any:
        return "write" if principal.subject in (scope, f"sql:{scope}") else "none"


async def test_a_program_may_do_what_the_rules_say_of_its_role_and_nothing_else(place: Place) -> None:
    async with hub_of(place, rules=Only()):
        with place.connect() as connection:
            connection.autocommit = True
            mine, other = left(connection, "1", "a", scope=place.role), left(connection, "2", "a", scope="elsewhere")
            assert (await place.answer(mine))["ok"]
            assert (await place.answer(other))["code"] == "DENIED"
            for forbidden in (
                "INSERT INTO atoma.cards(id) VALUES('x')",
                "SELECT * FROM atoma_hub.intake",
                "SELECT atoma_hub.leave('s', 'cards', 'insert', 'x', '{}', 'k', 'somebody')",
                "SELECT atoma.write_as('ada', 'ada', 'cards', 'insert', 'x', '{}')",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(forbidden)
            place.pg.ask(
                f"GRANT EXECUTE ON FUNCTION atoma.write_as(text, text, text, text, text, jsonb, text) TO {place.role}"
            )
            connection.execute(
                "SELECT atoma.write_as('ada', 'ada', 'cards', 'insert', 'x', '{\"title\": \"t\"}', 'of ada')"
            )
            assert (await place.answer("of ada"))["ok"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("'main', 'cards', 'replace', '1', '{}'", "op is insert, update, upsert or delete, not replace"),
        ("'main', 'cards', 'insert', NULL, '{}'", "are text, and values is a JSON object"),
        ("'main', 'cards', 'insert', '1', '[1]'", "are text, and values is a JSON object"),
        ("'main', 'cards', 'insert', '1', '{}', ''", "a key has 1 to 200 bytes"),
    ],
)
async def test_what_cannot_be_a_write_is_refused_in_the_programs_own_transaction(
    place: Place, given: str, says: str
) -> None:
    async with hub_of(place):
        with place.connect() as connection, pytest.raises(psycopg.errors.InvalidParameterValue, match=says):
            connection.execute(f"SELECT atoma.write({given})")


async def test_answers_are_forgotten_with_those_of_other_direct_writes(place: Place) -> None:
    async with hub_of(place) as hub:
        with place.connect() as connection:
            left(connection, "1", "a", "k")
        await place.answer("k")
        await hub.compact(keep_days=30)
        assert (await place.answer("k"))["ok"]
        await hub.compact(keep_days=-1, force=True)
        assert place.pg.ask(f"SELECT count(*) FROM {HUB_SCHEMA}.intake") == [(0,)]


@pytest.mark.parametrize(
    "values",
    ['\'{"title": "t", "weight": 1e400}\'', "('{\"title\": ' || repeat('[', 3000) || repeat(']', 3000) || '}')"],
)
async def test_values_that_nothing_holds_are_refused_and_the_hub_goes_on(place: Place, values: str) -> None:
    """JSON of PostgreSQL has numbers and depths that no value here has."""
    async with hub_of(place):
        with place.connect() as connection:
            connection.execute(f"SELECT atoma.write('main', 'cards', 'insert', 'c1', {values}::jsonb, 'k1')")
            left(connection, "c2", "tea", "k2")
        assert (await place.answer("k1"))["code"] == "INVALID"
        assert (await place.answer("k2"))["ok"] is True


async def test_a_delete_of_another_program_hides_where_the_store_keeps_what_is_deleted(place: Place) -> None:
    writes: tuple[tuple[str, dict[str, str]], ...] = (
        ("insert", {"title": "a"}),
        ("delete", {}),
        ("upsert", {"title": "b"}),
    )
    seen: list[tuple[Any, ...]] = []
    async with hub_of(place):
        for word, values in writes:
            with place.connect() as connection:
                sql = "SELECT atoma.write('blue', 'kept', %s, '1', %s::jsonb)"
                ((key,),) = connection.execute(sql, (word, json.dumps(values))).fetchall()
            assert (await place.answer(key))["ok"]
            seen += place.pg.ask("SELECT title, _hidden IS NOT NULL FROM atoma.kept")
    assert seen == [("a", False), ("a", True), ("b", False)]


@dataclass(frozen=True, slots=True)
class Invoice:
    id: str = ""
    text: str = ""


async def test_an_insert_without_an_id_is_told_the_one_that_the_hub_draws(place: Place) -> None:
    schema = Schema(StoreSpec("invoices", Invoice, hub_fields=["id"]))
    functions: Any = {"invoices": {"id": lambda of: f"R-{of.counter()}"}}
    async with open_hub(schema, place.pg.store(), verifier=AllowLoopback(), hub_fields=functions):
        place.pg.ask(f"GRANT USAGE ON SCHEMA atoma TO {place.role}")
        place.pg.ask(f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA atoma TO {place.role}")
        for key in ("one", "two", "one"):
            with place.connect() as connection:
                call = "SELECT atoma.write('main', 'invoices', 'insert', '', '{\"text\": \"t\"}', %s)"
                connection.execute(call, (key,))
        told = [(answer["ok"], answer["id"]) for answer in [await place.answer("one"), await place.answer("two")]]
        assert told == [(True, "R-1"), (True, "R-2")]
        assert place.pg.ask("SELECT count(*) FROM atoma.invoices") == [(2,)]
