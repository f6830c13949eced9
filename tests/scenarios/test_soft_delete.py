"""Soft delete on one device: no door shows a deleted row, until somebody asks for it or brings it back."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

from atoma import (
    Increment,
    Index,
    Reset,
    Schema,
    StoreSpec,
    col,
    count,
    count_of,
    exists,
    has_many,
    open_client,
    select,
)
from atoma.client.client import Client
from atoma.errors import (
    ConfigurationError,
    ConflictError,
    MigrationError,
    NotFoundError,
    QueryError,
    SchemaError,
    ValidationError,
)
from atoma.ports import seeded_environment
from atoma.runtime.functions import Reads
from atoma.schema.hooks import Saved
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import History, SQLiteEngine
from atoma_stores.sqlite.stored_schema import stored_schema
from tests.paths import memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    lane: str = "todo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    id: str
    lane: str = "todo"
    votes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    id: str
    card: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    id: str
    card: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    id: str


CARDS = StoreSpec("cards", Card, soft_delete=True, indexes=[Index("title", unique=True)], search=["title"])
REMARKS = StoreSpec("remarks", Remark, soft_delete=True)
TAGGED = StoreSpec("tagged", Tagged, soft_delete=True)
LABELS = StoreSpec("labels", Label, soft_delete=True)
PLAIN = StoreSpec("plain", Label)
SCHEMA = Schema(CARDS, REMARKS, TAGGED, LABELS, PLAIN)
REMARKS_OF = has_many(CARDS, REMARKS, on=REMARKS.col(lambda remark: remark.card))
LABELS_OF = has_many(
    CARDS, LABELS, through=(TAGGED, TAGGED.col(lambda link: link.card), TAGGED.col(lambda link: link.label))
)
CARD_ID, REMARK_CARD = CARDS.col(lambda card: card.id), REMARKS.col(lambda remark: remark.card)

BEGUN = select(CARDS).left_join(REMARKS, CARD_ID == REMARK_CARD)
JOINED = select(PLAIN).left_join(CARDS, PLAIN.col(lambda row: row.id) != CARD_ID)


def opened(path: str | Path, schema: Schema = SCHEMA, **options: Any) -> Any:
    return open_client(
        schema, plugins=[LocalExecution(SQLiteEngine(path, **options))], environment=seeded_environment(1)
    )


async def fill(client: Client) -> None:
    """A card to delete and one to keep, which has a remark and a label of each kind."""
    await client.store(PLAIN).insert(Label(id="plain"))
    for id in ("dead", "kept"):
        await client.store(CARDS).insert(Card(id=id, title=f"{id} card"))
        await client.store(REMARKS).insert(Remark(id=f"{id}-remark", card="kept"))
        await client.store(LABELS).insert(Label(id=f"{id}-label"))
        await client.store(TAGGED).insert(Tagged(id=f"{id}-link", card="kept", label=f"{id}-label"))


async def _live(client: Client) -> object:
    async with client.live(select(CARDS).order_by("title")) as batches:
        batch = await anext(batches)
        assert isinstance(batch.changes[0], Reset)
        return batch.changes[0].rows


async def _observed(client: Client) -> object:
    async with client.live(select(CARDS).columns(CARD_ID).distinct()) as batches:
        return (await anext(batches)).changes[0]


async def _live_function(client: Client) -> object:
    async def read(reads: Reads) -> object:
        return await reads.get(CARDS, "dead"), await reads.count(select(CARDS))

    async with client.live(read) as values:
        return await anext(values)


async def _in_a_transaction(client: Client) -> object:
    async with client.transaction() as tx:
        cards = tx.store(CARDS)
        return await cards.get("dead"), await cards.query(select(CARDS))


async def _written_by_query(client: Client) -> object:
    return await client.update_where(select(CARDS), lane="asked")


async def _past(client: Client) -> object:
    commits = await client.history.commits()
    return await client.history.at(commits[0].commit).query(select(CARDS).order_by("id"))


async def _exported(client: Client) -> object:
    with tempfile.TemporaryDirectory() as folder:
        await client.store(CARDS).export(Path(folder) / "cards.ndjson")
        return (Path(folder) / "cards.ndjson").read_text()


Door = Callable[[Client], Awaitable[object]]
DOORS: Mapping[str, Door] = {
    "get": lambda client: client.store(CARDS).get("dead"),
    "get_many": lambda client: client.store(CARDS).get_many(["dead", "kept"]),
    "get_all": lambda client: client.store(CARDS).get_all(),
    "query": lambda client: client.store(CARDS).query(),
    "a page": lambda client: client.query(select(CARDS).order_by("-title").limit(2).with_total()),
    "first": lambda client: client.first(select(CARDS).order_by("title")),
    "count": lambda client: client.count(select(CARDS)),
    "exists": lambda client: client.store(CARDS).exists("dead"),
    "version": lambda client: client.store(CARDS).version("dead"),
    "by its id": lambda client: client.query(select(CARDS).where(CARD_ID == "dead")),
    "columns": lambda client: client.query(select(CARDS).columns(CARD_ID)),
    "an aggregate": lambda client: client.query(select(CARDS).columns(count())),
    "groups": lambda client: client.query(
        select(CARDS).columns(CARDS.col(lambda card: card.lane), count()).group_by("lane")
    ),
    "a search": lambda client: client.query(select(CARDS).where(CARDS.matches("card"))),
    "rows that a join begins with": lambda client: client.query(BEGUN),
    "rows that are joined": lambda client: client.query(
        select(LABELS).join(CARDS, LABELS.col(lambda label: label.id) != CARD_ID)
    ),
    "rows that are joined from the left": lambda client: client.query(JOINED),
    "an include": lambda client: client.query(select(CARDS).where(CARD_ID == "kept").include(REMARKS_OF)),
    "an include with a limit": lambda client: client.query(
        select(CARDS).where(CARD_ID == "kept").include(REMARKS_OF, lambda remarks: remarks.order_by("id").limit(5))
    ),
    "the far end of a relation": lambda client: client.query(
        select(CARDS).where(CARD_ID == "kept").include(LABELS_OF)
    ),
    "a subquery": lambda client: client.query(
        select(PLAIN).columns(count_of(select(CARDS)))
    ),
    "whether there is one": lambda client: client.query(
        select(PLAIN).where(exists(select(CARDS).where(CARD_ID == "dead")))
    ),
    "a list of values": lambda client: client.query(
        select(REMARKS).where(REMARKS.col(lambda remark: remark.id).in_(select(REMARKS).columns(REMARKS.col(lambda r: r.id))))
    ),
    "a derived table": lambda client: client.query(select(select(CARDS).columns(CARD_ID).named("derived"))),
    "live": _live,
    "live columns": _observed,
    "a live function": _live_function,
    "a transaction": _in_a_transaction,
    "a write by query": _written_by_query,
    "the past": _past,
    "a file": _exported,
    "own SQL": lambda client: client.sql(str, "SELECT id FROM cards ORDER BY id"),
}  # fmt: skip


DEAD = ((CARDS, "dead"), (REMARKS, "dead-remark"), (LABELS, "dead-label"))


async def ask_all(client: Client) -> dict[str, str]:
    """What every door answers."""
    found: dict[str, str] = {}
    for name, door in DOORS.items():
        answer = await door(client)
        total = getattr(answer, "total", "")
        found[name] = repr(getattr(answer, "items", answer)) + repr(total)
    return found


async def test_no_door_shows_a_deleted_row_and_every_one_shows_it_once_it_is_back(tmp_path: Path) -> None:
    """What a door answers is what it answers where the rows never were."""
    async with opened(tmp_path / "a.db", history=History(days=1)) as client:
        await fill(client)
        await client.update_where(select(CARDS), lane="asked")
        whole = await ask_all(client)
        for store, id in DEAD:
            await client.store(store).delete(id)
        hidden = await ask_all(client)
        for store, id in DEAD:
            await client.store(store).restore(id)
        back = await ask_all(client)
    async with opened(tmp_path / "b.db", history=History(days=1)) as client:
        await fill(client)
        await client.update_where(select(CARDS), lane="asked")
        for store, id in DEAD:
            await client.store(store).purge(id)
        without = await ask_all(client)
    assert {door for door in DOORS if without[door] == whole[door]} == set(), "every door shows the rows that are there"
    assert {door: hidden[door] for door in DOORS if hidden[door] != without[door]} == {}
    del back["version"], whole["version"]
    assert back == whole


async def test_a_link_that_was_deleted_leads_nowhere() -> None:
    async with opened(memory()) as client:
        await fill(client)
        query = select(CARDS).where(CARD_ID == "kept").include(LABELS_OF)
        assert [label.id for label in (await client.query(query))[0][1]] == ["dead-label", "kept-label"]
        await client.store(TAGGED).delete("dead-link")
        assert [label.id for label in (await client.query(query))[0][1]] == ["kept-label"]
        found = select(CARDS).where(exists(LABELS_OF, lambda labels: labels.where(col("id") == "dead-label")))
        assert await client.count(found) == 0


async def test_what_each_write_makes_of_a_deleted_row() -> None:
    async with opened(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="1", title="one"))
        gone = await cards.delete("1")
        assert gone.changed and gone.value is None
        for write in (cards.delete("1"), cards.update("1", lane="x"), cards.update("1", lambda card: card)):
            with pytest.raises(NotFoundError):
                await write
        with pytest.raises(
            ConflictError, match=r"cards/1 was deleted and is still kept; restore it, or choose another"
        ):
            await cards.insert(Card(id="1", title="again"))
        back = await cards.restore("1")
        assert back.value == Card(id="1", title="one")
        assert not (await cards.restore("1")).changed, "one that is there stays as it is"
        await cards.delete("1")
        changed = await cards.upsert({"id": "1", "title": "uno"})
        assert changed.value == await cards.get("1") == Card(id="1", title="uno"), "an upsert brings it back"
        await cards.delete("1")
        await cards.upsert(Card(id="1", title="eins"), apply="replace")
        assert await cards.get("1") == Card(id="1", title="eins")
        await cards.delete("1")
        await cards.upsert(Card(id="1", title="un"), conflict="cas", base_version=0)
        assert await cards.get("1") == Card(id="1", title="un"), "nobody can see that it is there"
        await cards.purge("1")
        assert await cards.get("1", include_deleted=True) is None
        for write in (cards.restore("1"), cards.purge("1")):
            with pytest.raises(NotFoundError):
                await write
        await cards.insert(Card(id="1", title="new"))
        await cards.delete("1")
        await cards.purge("1")
        assert await client.count(select(CARDS, include_deleted=True)) == 0


async def test_many_inserts_of_which_one_meets_a_deleted_row() -> None:
    async with opened(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="7", title="seven"))
        await cards.delete("7")
        many = await cards.insert_many([Card(id=str(number), title=str(number)) for number in range(40)])
        assert [(item.id, type(item.error)) for item in many.items if item.error] == [("7", ConflictError)]
        assert await cards.count() == 39
        assert await cards.get("7", include_deleted=True) == Card(id="7", title="seven")


async def test_a_value_is_free_once_its_row_is_deleted_and_taken_when_it_comes_back() -> None:
    async with opened(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="1", title="same"))
        await cards.delete("1")
        await cards.insert(Card(id="2", title="same"))
        with pytest.raises(ConflictError, match=r"cards/1: another row has the same title"):
            await cards.restore("1")
        assert await cards.get("1") is None
        await cards.delete("2")
        await cards.restore("1")
        with pytest.raises(ConflictError, match=r"another row has the same title"):
            await cards.restore("2")


async def test_deleted_rows_are_shown_to_whoever_asks_for_them() -> None:
    async with opened(memory()) as client:
        await fill(client)
        for store, id in DEAD:
            await client.store(store).delete(id)
        cards = client.store(CARDS)
        assert await cards.get("dead", include_deleted=True) == Card(id="dead", title="dead card")
        bin_ = select(CARDS, include_deleted=True).where(CARDS.deleted_at.not_null())
        assert [card.id for card in await client.query(bin_)] == ["dead"]
        (when,) = await client.query(bin_.columns(CARDS.deleted_at))
        assert when is not None and when > datetime(2020, 1, 1, tzinfo=UTC), "the clock's moment, not that of no clock"
        assert await client.count(select(CARDS, include_deleted=True)) == 2
        joined = select(LABELS).left_join(
            REMARKS, LABELS.col(lambda label: label.id) != REMARK_CARD, include_deleted=True
        )
        assert {remark.id for _, remark in await client.query(joined) if remark} == {"dead-remark", "kept-remark"}
        with_all = select(CARDS).include(REMARKS_OF, lambda _: select(REMARKS, include_deleted=True))
        assert [len(remarks) for _, remarks in await client.query(with_all)] == [2]
        async with client.live(select(CARDS, include_deleted=True)) as batches:
            await anext(batches)
            await cards.delete("kept")
            assert len((await anext(batches)).changes) == 1, "the mark is a change of the row"


@pytest.mark.paths
async def test_a_live_query_sees_a_deletion_and_a_return_as_rows_that_go_and_come() -> None:
    async with opened(memory()) as client:
        cards = client.store(CARDS)
        await fill(client)
        async with (
            client.live(select(CARDS).order_by("id")) as batches,
            client.live(select(CARDS).columns(CARDS.col(lambda card: card.lane), count()).group_by("lane")) as groups,
            client.live(select(CARDS).include(REMARKS_OF)) as included,
        ):
            for each in (batches, groups, included):
                await anext(each)
            await cards.delete("dead")
            assert [type(change).__name__ for change in (await anext(batches)).changes] == ["Remove"]
            await anext(groups)
            await anext(included)
            await cards.restore("dead")
            (change,) = (await anext(batches)).changes
            assert type(change).__name__ == "Insert"
            await client.store(REMARKS).delete("dead-remark")
            await anext(included)
            assert [len(remarks) for _, remarks in await client.query(select(CARDS).include(REMARKS_OF))] == [0, 1]


async def test_a_transaction_deletes_restores_and_purges() -> None:
    async with opened(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert_many([Card(id=str(number), title=str(number)) for number in range(4)])
        await cards.delete("0")
        async with client.transaction() as tx:
            inside = tx.store(CARDS)
            await inside.update("1", lane="moved")
            await inside.delete("1")
            assert await inside.get("1") is None
            assert [card.id for card in await inside.query(select(CARDS).order_by("id"))] == ["2", "3"]
            with pytest.raises(NotFoundError):
                await inside.update("1", lane="x")
            with pytest.raises(ConflictError):
                await inside.insert(Card(id="1", title="again"))
            assert await inside.restore("1") == Card(id="1", title="1", lane="moved")
            assert await inside.restore("0") == Card(id="0", title="0")
            await inside.delete("2")
            await inside.purge("3")
        assert [card.id for card in await cards.get_all()] == ["0", "1", "2"][:2]
        assert await cards.get("2", include_deleted=True) is not None
        assert await cards.get("3", include_deleted=True) is None
        with pytest.raises(NotFoundError):
            async with client.transaction() as tx:
                await tx.store(CARDS).restore("3")


async def test_a_transaction_that_has_looked_at_a_deleted_row_can_bring_it_back() -> None:
    async with opened(memory()) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="1", title="one"))
        await cards.delete("1")
        async with client.transaction() as tx:
            (card,) = await tx.store(CARDS).query(select(CARDS, include_deleted=True))
            await tx.store(CARDS).restore(card.id)
        assert await cards.get("1") == card == Card(id="1", title="one")
        await cards.delete("1")
        with pytest.raises(ConflictError, match="changed since"):
            async with client.transaction() as tx:
                await tx.store(CARDS).query(select(CARDS, include_deleted=True))
                await cards.restore("1")
                await tx.store(CARDS).insert(Card(id="2", title="two"))


async def test_an_upsert_in_a_transaction_goes_on_from_the_deleted_row_as_one_outside_does() -> None:
    spec = StoreSpec("cards", Counted, soft_delete=True, merge={"votes": "counter"})
    async with opened(memory(), Schema(spec)) as client:
        cards = client.store(spec)
        for id in ("in", "out"):
            await cards.insert(Counted(id=id, lane="done", votes=5))
            await cards.delete(id)
        async with client.transaction() as tx:
            inside = tx.store(spec)
            await inside.upsert({"id": "in", "votes": Increment(2)})
            assert await inside.get("in") == Counted(id="in", lane="done", votes=7)
            await inside.update("in", lambda card: replace(card, votes=card.votes + 10))
            await inside.upsert(Counted(id="new", votes=1))
        await cards.upsert({"id": "out", "votes": Increment(2)})
        await cards.update("out", lambda card: replace(card, votes=card.votes + 10))
        assert {card.id: (card.lane, card.votes) for card in await cards.get_all()} == {
            "in": ("done", 17),
            "out": ("done", 17),
            "new": ("todo", 1),
        }


async def test_undo_brings_back_what_was_deleted_softly_and_redo_deletes_it_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db", history=History(days=1)) as client:
        cards = client.store(CARDS)
        await cards.insert(Card(id="1", title="one"))
        with client.undo.group("Delete"):
            await cards.delete("1")
        await client.undo.undo()
        assert await cards.get("1") == Card(id="1", title="one")
        await client.undo.redo()
        assert await cards.get("1") is None
        assert await cards.get("1", include_deleted=True) == Card(id="1", title="one")


async def test_by_query_rows_are_hidden_not_removed() -> None:
    async with opened(memory()) as client:
        await fill(client)
        assert await client.delete_where(select(CARDS).where(col("id") == "dead")) == ("dead",)
        assert await client.store(CARDS).get("dead", include_deleted=True) is not None
        assert await client.delete_where(select(CARDS)) == ("kept",)


async def test_hooks_see_a_row_that_goes_and_one_that_comes() -> None:
    seen: list[Saved[Card]] = []
    checked: list[str] = []

    def check(card: Card) -> Card:
        checked.append(card.id)
        return card

    spec = StoreSpec("cards", Card, soft_delete=True, after_save=seen.append, before_save=check)
    async with opened(memory(), Schema(spec)) as client:
        cards = client.store(spec)
        await cards.insert(Card(id="1", title="one"))
        await cards.delete("1")
        await cards.restore("1")
        with trio.fail_after(60):
            while len(seen) < 3:
                await trio.sleep(0.01)
    assert [(saved.before is None, saved.after is None) for saved in seen] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    assert checked == ["1", "1"], "a row that goes is not shown to before_save"


async def test_set_fields_and_search_go_on_over_a_deletion(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as client:
        await fill(client)
        await client.store(CARDS).delete("dead")
    async with opened(tmp_path / "a.db") as client:
        assert [card.id for card in await client.query(select(CARDS).where(CARDS.matches("card")))] == ["kept"]
        await client.store(CARDS).restore("dead")
        assert await client.count(select(CARDS).where(CARDS.matches("dead"))) == 1


@pytest.mark.parametrize("first", [False, True])
async def test_a_store_begins_to_delete_softly_with_rows_in_it(first: bool, tmp_path: Path) -> None:
    """The mark is one more column: adding it takes no step, and giving it up takes one that says so."""
    index = [Index("title", unique=True)]
    before = StoreSpec("cards", Card, indexes=index, soft_delete=first)
    after = StoreSpec("cards", Card, indexes=index, soft_delete=True)
    async with opened(tmp_path / "a.db", Schema(before)) as client:
        await client.store(before).insert_many([Card(id="1", title="one"), Card(id="2", title="two")])
    async with opened(tmp_path / "a.db", Schema(after)) as client:
        cards = client.store(after)
        assert await cards.count() == 2
        await cards.delete("1")
        await cards.insert(Card(id="3", title="one"))
    with pytest.raises(MigrationError, match=r"would show again the rows that were deleted: declare soft_delete=True"):
        async with opened(tmp_path / "a.db", Schema(StoreSpec("cards", Card, indexes=index))):
            pass


async def test_a_file_tells_by_itself_that_its_store_keeps_what_is_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.db") as client:
        await fill(client)
        await client.store(CARDS).delete("dead")
    connection = apsw.Connection(str(tmp_path / "a.db"))
    schema = stored_schema(connection, "client")
    connection.close()
    assert {name: store.soft_delete for name, store in schema.stores.items()} == {
        "cards": True,
        "remarks": True,
        "tagged": True,
        "labels": True,
        "plain": False,
    }
    assert schema.stores["cards"].columns == CARDS.columns


async def test_what_cannot_be_is_refused_with_what_to_do() -> None:
    with pytest.raises(SchemaError, match="soft_delete is True, False, or the timedelta above 0"):
        StoreSpec("cards", Card, soft_delete=timedelta(0))
    with pytest.raises(QueryError, match=r"declare StoreSpec\('plain', …, soft_delete=True\)"):
        select(PLAIN, include_deleted=True)
    with pytest.raises(QueryError, match="deletes for good"):
        PLAIN.deleted_at  # noqa: B018
    kept = StoreSpec("kept", Label, soft_delete=timedelta(days=30))
    with pytest.raises(ConfigurationError, match="says when a hub purges, and this client does not sync it"):
        async with opened(memory(), Schema(kept)):
            pass
    async with opened(memory()) as client:
        with pytest.raises(ValidationError, match="deletes for good: there is nothing to restore"):
            await client.store(PLAIN).restore("1")
        with pytest.raises(QueryError, match="deletes for good"):
            await client.store(PLAIN).get("1", include_deleted=True)
        with pytest.raises(ValidationError, match="has no field '_hidden'; it has: title, lane"):
            await client.store(CARDS).update("1", {"_hidden": None})
        with pytest.raises(ValidationError, match="unknown field '_hidden'"):
            await client.store(CARDS).upsert({"id": "1", "title": "x", "_hidden": None})
        await client.store(PLAIN).insert(Label(id="1"))
        await client.store(PLAIN).purge("1")
