"""Write groups: what many callers want decided is two batches, and comes to what it would be one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import apsw
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from atoma.contracts.mutations import Op
from atoma.contracts.sync import Limits, OpenRequest, Outcome, PushRequest
from atoma.errors import RemoteError
from atoma.hub.direct import read_answer, write_decisions
from atoma.hub.pushing import DecisionContext, OpenDecision, push_decisions
from atoma.hub.resolving import ResolveDecision
from atoma.hub.rules import EveryScope, RowRules
from atoma.hub.setting import HubFields
from atoma.ports.environment import seeded_environment
from atoma.ports.hub import Decision, Facts, Need, WritePlan
from atoma.ports.service import Principal
from atoma_stores.sql.dialect import SQLITE
from atoma_stores.sql.hub.epochs import load_identity
from atoma_stores.sql.hub.groups import GroupQueries, OneByOne, groups, write_group
from atoma_stores.sql.hub.rows import stores_of
from atoma_stores.sql.hub.state import Run
from atoma_stores.sql.hub.tables import TABLES
from atoma_stores.sql.scripts import Execute, ExecuteMany, Row, Script
from atoma_stores.sqlite.ddl import prepare_file
from atoma_stores.sqlite.hub_driver import ADDITIONS, INTERNALS, GroupWriter, drive
from tests.unit.hub.kit import SCHEMA, Client, card, direct

T = TypeVar("T")
NOW_MS = 1_700_000_000_000
USER = Principal("local")
CONTEXT = DecisionContext(SCHEMA, EveryScope(), Limits(), RowRules(SCHEMA, {}), HubFields(SCHEMA.stores, {}))
QUERIES = GroupQueries(SQLITE, stores_of(SQLITE, SCHEMA))


@dataclass
class Counting:
    """A driver that keeps the batches it was given."""

    connection: apsw.Connection
    batches: list[Sequence[Execute | ExecuteMany]] = field(default_factory=list)

    def drive(self, script: Script[T]) -> T:
        results: list[Sequence[Row]] | None = None
        try:
            while True:
                self.batches.append(next(script) if results is None else script.send(results))
                results = [self._run(statement) for statement in self.batches[-1]]
        except StopIteration as end:
            return cast("T", end.value)

    def _run(self, statement: Execute | ExecuteMany) -> list[Row]:
        if isinstance(statement, ExecuteMany):
            self.connection.executemany(statement.sql, statement.rows)
            return []
        return cast("list[Row]", self.connection.execute(statement.sql, cast("Any", statement.values)).fetchall())


@contextmanager
def a_database() -> Iterator[apsw.Connection]:
    """An empty hub's database."""
    connection = apsw.Connection(":memory:")
    environment = seeded_environment(1)
    try:
        prepare_file(connection, SCHEMA, layout="hub", internals=INTERNALS, additions=ADDITIONS)
        drive(connection, load_identity(SQLITE, environment))
        yield connection
    finally:
        connection.close()


def client(name: str) -> Client:
    return Client(cast("Any", None), name.encode().ljust(16, b"."))


class Failing:
    """A decision that cannot be made."""

    need = Need()

    def decide(self, facts: Facts) -> WritePlan:
        """Never."""
        raise RemoteError(f"not at {facts.now_ms}", remote_code="MALFORMED")


async def pushed(of: Client, first: int = 1, *, broken: bool = False) -> Run:
    """The run of a push of what ``of`` has written from number ``first`` on; a broken one fails at its end."""
    request = PushRequest(of.client_id, 1, tuple(of.mutations[first - 1 :]), of.digests[first - 1])
    decisions, error = await push_decisions(CONTEXT, USER, request, b"key")
    assert error is None
    return Run([*decisions, Failing()] if broken else decisions, NOW_MS)


def seat(id: str, place: str) -> Op:
    return Op("create", "seats", id, {"place": place})


def written(connection: apsw.Connection, *runs: Run) -> list[list[object]]:
    """What the runs were told, after they have been written as one group."""
    connection.execute("BEGIN")
    GroupWriter(QUERIES).write(connection, runs)
    connection.execute("COMMIT")
    return [[plan.reply for plan in run.plans] for run in runs]


def statuses(replies: Sequence[object]) -> list[str]:
    return [reply.status for reply in replies if isinstance(reply, Outcome)]


async def busy_runs(clients: int) -> list[Run]:
    """Pushes of that many clients to two scopes, with direct writes, questions after them, and an opening."""
    runs: list[Run] = []
    for number in range(clients):
        of = client(f"c{number}")
        for count in range(3):
            of.write(Op("create", "cards", f"{number}.{count}", card("t")), scope=f"s{number % 2}")
        runs.append(await pushed(of))
    entry = Op("create", "cards", "direct", card("d"), scope="s0")
    decisions: list[Decision] = write_decisions(CONTEXT, USER, direct(entry, idem="key"), {})
    opening = OpenRequest(client("c0").client_id, 1, 1, SCHEMA.hash, ("s0",), 0, 3)
    for more in (decisions, [ResolveDecision(USER, "key")], [OpenDecision(opening, USER)]):
        runs.append(Run(more, NOW_MS))
    return runs


async def test_a_group_of_many_callers_is_two_batches_however_many_they_are() -> None:
    sizes: list[list[int]] = []
    for clients in (2, 40):
        with a_database() as connection:
            driver = Counting(connection)
            assert driver.drive(write_group(QUERIES, await busy_runs(clients))) == 1
            facts, effects = driver.batches
            assert all(statement.sql.startswith(("SELECT", "WITH")) for statement in facts)
            assert not any(statement.sql.startswith("SELECT") for statement in effects)
            sizes.append([len(facts), len(effects)])
            assert connection.execute("SELECT sum(head) FROM _atoma_hub_scope").get == 3 * clients + 1
    assert sizes[0] == sizes[1]


async def test_a_group_that_changes_nothing_is_one_batch() -> None:
    with a_database() as connection:
        of = client("a")
        of.write(Op("create", "cards", "1", card("t")))
        written(connection, await pushed(of))
        driver = Counting(connection)
        again = await pushed(of)
        assert driver.drive(write_group(QUERIES, [again])) == 0
        assert len(driver.batches) == 1
        (told,) = again.plans
        assert isinstance(told.reply, Outcome)
        assert told.reply.duplicate


async def test_a_row_is_written_once_however_often_it_changes() -> None:
    with a_database() as connection:
        of = client("a")
        of.write(Op("create", "cards", "1", card("0")))
        for number in range(1, 30):
            of.write(Op("patch", "cards", "1", {"title": f"{number}"}))
        driver = Counting(connection)
        driver.drive(write_group(QUERIES, [await pushed(of)]))
        puts = [statement for statement in driver.batches[1] if statement.store]
        assert [len(statement.rows) for statement in puts if isinstance(statement, ExecuteMany)] == [1]
        assert connection.execute("SELECT title, _seq FROM cards").fetchall() == [("29", 30)]
        assert connection.execute("SELECT count(*) FROM _atoma_hub_change").get == 30


async def test_a_run_that_fails_is_dropped_alone() -> None:
    with a_database() as connection:
        a, b = client("a"), client("b")
        written(connection, await pushed(_wrote(a, seat("a", "1"))))
        lost = await pushed(_wrote(a, seat("lost", "2")), 2, broken=True)
        replies = written(connection, lost, await pushed(_wrote(b, seat("b", "3"))))
        assert lost.error is not None
        assert (replies[0], statuses(replies[1])) == ([], ["applied"])
        assert sorted(str(row[0]) for row in connection.execute("SELECT id FROM seats")) == ["a", "b"]


async def test_only_the_step_that_the_file_refuses_is_refused() -> None:
    with a_database() as connection:
        runs = [
            await pushed(_wrote(client(name), seat(name, place)))
            for name, place in (("a", "1"), ("b", "1"), ("c", "2"))
        ]
        with pytest.raises(OneByOne):
            drive(connection, write_group(QUERIES, runs))
    with a_database() as connection:
        assert [statuses(replies) for replies in written(connection, *runs)] == [["applied"], ["rejected"], ["applied"]]
        assert connection.execute("SELECT id, _seq FROM seats ORDER BY id").fetchall() == [("a", 1), ("c", 2)]
        assert connection.execute("SELECT count(*) FROM _atoma_hub_tx").get == 2


async def test_a_violation_that_a_later_step_would_heal_is_refused_all_the_same() -> None:
    """Else what is accepted would hang on who else was there, and the log would hold a state that cannot be."""
    with a_database() as connection:
        written(connection, await pushed(_wrote(client("a"), seat("a", "1"))))
        late, healing = client("b"), client("c")
        runs = [
            await pushed(_wrote(late, seat("b", "1"))),
            await pushed(_wrote(healing, Op("delete", "seats", "a"), base=1)),
        ]
        assert [statuses(replies) for replies in written(connection, *runs)] == [["rejected"], ["applied"]]


async def test_values_change_places_within_a_step_without_a_detour() -> None:
    with a_database() as connection:
        of = client("a")
        written(connection, await pushed(_wrote(of, seat("a", "1"), seat("b", "2"))))
        _wrote(of, Op("patch", "seats", "a", {"place": "2"}), Op("patch", "seats", "b", {"place": "1"}), base=1)
        driver = Counting(connection)
        driver.drive(write_group(QUERIES, [await pushed(of, 2)]))
        assert connection.execute("SELECT id, place FROM seats ORDER BY id").fetchall() == [("a", "2"), ("b", "1")]


def test_a_group_has_a_bounded_number_of_steps_and_whole_runs() -> None:
    runs = [Run([ResolveDecision(USER, "k")] * size, NOW_MS) for size in (150, 50, 1, 300, 2)]
    assert [[len(run.decisions) for run in group] for group in groups(runs)] == [[150, 50], [1], [300], [2]]


async def test_a_group_has_a_bounded_number_of_bytes_and_whole_runs() -> None:
    """Many large rows at once would take longer than a statement may."""
    runs: list[Run] = []
    for at, size in enumerate((400_000, 600_000, 700_000)):
        runs.append(await pushed(_wrote(client(f"{at}"), Op("create", "cards", f"{at}", card("x" * size)))))
    for id, size in (("3", 400_000), ("4", 10)):
        entry = Op("create", "cards", id, card("x" * size), scope="main")
        runs.append(Run(write_decisions(CONTEXT, USER, direct(entry, idem=id), {}), NOW_MS))
    assert [[runs.index(run) for run in group] for group in groups(runs)] == [[0, 1], [2], [3, 4]]


def _wrote(of: Client, *ops: Op, base: int = 0) -> Client:
    of.write(*ops, base=base)
    return of


# one group, and one run after the other

KEYS = ("x", "y")


@dataclass(frozen=True)
class Said:
    """One run: what a client writes, or a direct write; ``broken`` makes it fail in the middle."""

    who: int
    ops: tuple[tuple[str, str, str, str], ...]
    base: int = 0
    broken: bool = False


OPS = st.tuples(
    st.sampled_from(("create", "patch", "delete")),
    st.sampled_from(("cards", "seats")),
    st.sampled_from(("1", "2", "3")),
    st.sampled_from(KEYS),
)
RUNS = st.builds(
    Said,
    who=st.integers(0, 3),
    ops=st.lists(OPS, min_size=1, max_size=4).map(tuple),
    base=st.integers(0, 4),
    broken=st.sampled_from((False, False, False, True)),
)


async def runs_of(said: Sequence[Said]) -> list[Run]:
    """The runs, the same ones each time; of a client whose run is broken nothing more is sent."""
    clients = [client(f"c{number}") for number in range(3)]
    silent: set[int] = set()
    runs: list[Run] = []
    for number, each in enumerate(said):
        if each.who == 3:
            entries = [_entry(*op) for op in each.ops]
            runs.append(Run(write_decisions(CONTEXT, USER, direct(*entries, idem=f"key{number % 3}"), {}), NOW_MS))
        elif each.who not in silent:
            of = clients[each.who]
            first = len(of.mutations) + 1
            for kind, store, id, key in each.ops:
                of.write(Op(cast("Any", kind), store, id, _values(kind, store, key)), base=each.base)
            runs.append(await pushed(of, first, broken=each.broken))
            if each.broken:
                silent.add(each.who)
    return runs


def _entry(kind: str, store: str, id: str, key: str) -> Op:
    op = "upsert" if kind == "patch" else kind
    return Op(cast("Any", op), store, id, _values(kind, store, key), scope="main")


def _values(kind: str, store: str, key: str) -> dict[str, Any]:
    if kind == "delete":
        return {}
    return card(key) if store == "cards" else {"place": key}


def everything(connection: apsw.Connection) -> dict[str, list[tuple[object, ...]]]:
    """All tables, with clients in the place of their numbers, and without the counter of commits."""
    names = dict(
        cast(
            "list[tuple[int, bytes]]", connection.execute("SELECT number, client_id FROM _atoma_hub_client").fetchall()
        )
    )
    found: dict[str, list[tuple[object, ...]]] = {}
    for table in [*(SQLITE.table(table.name) for table in TABLES), *SCHEMA.stores]:
        cursor = connection.execute(f'SELECT * FROM "{table}"')
        rows = cursor.fetchall()
        columns = [str(row[1]) for row in connection.execute(f'PRAGMA table_info("{table}")')]
        numbers = {"author", "_ver", "number", "client"} if table != "_atoma_hub_epoch" else set()
        found[table] = sorted(
            (
                tuple(
                    names.get(cast("int", value), value) if column in numbers else value
                    for column, value in zip(columns, row, strict=True)
                    if column != "commits"
                )
                for row in rows
            ),
            key=repr,
        )
    return found


def told(runs: Sequence[Run]) -> list[object]:
    return [
        str(run.error)
        if run.error
        else [
            read_answer(p.reply, SCHEMA, lambda *row: True) if isinstance(p.reply, bytes) else p.reply
            for p in run.plans
        ]
        for run in runs
    ]


def in_turn(runs: Callable[[], list[Run]]) -> tuple[list[object], dict[str, list[tuple[object, ...]]]]:
    with a_database() as connection:
        alone = runs()
        for run in alone:
            written(connection, run)
        return told(alone), everything(connection)


def at_once(runs: Callable[[], list[Run]]) -> tuple[list[object], dict[str, list[tuple[object, ...]]]]:
    with a_database() as connection:
        together = runs()
        written(connection, *together)
        return told(together), everything(connection)


@settings(max_examples=50, deadline=None)
@given(st.lists(RUNS, min_size=2, max_size=8))
def test_a_group_comes_to_what_its_runs_come_to_one_after_the_other(said: list[Said]) -> None:
    def runs() -> list[Run]:
        return trio.run(runs_of, said)

    assert at_once(runs) == in_turn(runs)
