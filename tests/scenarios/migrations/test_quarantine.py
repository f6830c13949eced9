"""What a migration could not convert lies in quarantine, and comes out of it: corrected and synced, or let go of."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import assert_type

import pytest
from msgspec.structs import replace

from atoma import Client, Schema, StoreSpec, WriteHandle, open_client
from atoma.errors import ConflictError, PluginError, StoreBusy, ValidationError
from atoma.schema.migrations import Convert, Rename
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.scenarios.cli.kit import atoma, atoma_beside
from tests.scenarios.migrations.versions import Place, settle

pytestmark = pytest.mark.virtual_time


@dataclass(frozen=True, slots=True)
class Before:
    id: str
    amount: str
    note: str = ""
    picture: bytes = b""


@dataclass(frozen=True, slots=True)
class After:
    id: str
    amount: int
    text: str = ""
    picture: bytes = b""
    more: int = 5


OLD = Schema(StoreSpec("bills", Before))
BILLS = StoreSpec("bills", After)
NEW = Schema(
    BILLS, version=2, steps={2: [Convert("bills.amount", int, was=str, back=str), Rename("bills.note", "text")]}
)
NAMED = "tests.scenarios.migrations.test_quarantine:NEW"


async def begun(folder: Path) -> Place:
    """A hub and ann's file of the first version, and a write that waits in it; some of it is no number."""
    made = Place(folder)
    async with made.hub(OLD), made.device("ann", OLD) as ann:
        bills = ann.store(OLD.stores["bills"])
        await bills.insert_many([Before("good", "1"), Before("bad", "one", "kept", b"\x01\xff"), Before("worse", "?")])
        await bills.insert(Before("edited", "2", "two"))
        await settle(ann)
        ann.sync.pause()
        await bills.update("edited", {"amount": "many"})
    return made


async def bills_of(client: Client) -> dict[str, After]:
    return {bill.id: bill for bill in await client.store(BILLS).query()}


async def test_a_row_is_corrected_and_comes_back_on_every_device(tmp_path: Path) -> None:
    place = await begun(tmp_path)
    async with place.hub(NEW), place.device("ann", NEW) as ann, place.device("ben", NEW) as ben:
        entries = list(await ann.quarantine.entries())
        by_row = {(entry.id, entry.what): entry for entry in entries}
        bad = by_row["bad", "a row"]
        assert bad.kept == {"amount": "one", "note": "kept", "picture": "01ff"} and bad.version == 1
        assert "invalid literal" in bad.reason
        assert {id for id, _ in by_row} == {"bad", "worse", "edited"}
        handle = await ann.quarantine.bring_back(bad, {"amount": 7})
        assert_type(handle, WriteHandle[object])
        wanted = After("bad", 7, "kept", b"\x01\xff", 5)
        assert handle.value == wanted, "what can be read is taken from what was put aside, under its name of today"
        await ann.quarantine.bring_back(by_row["edited", "a write that waits"], {"amount": 3})
        assert (await bills_of(ann))["edited"] == After("edited", 3, "two")
        await settle(ann)
        await settle(ben)
        assert await bills_of(ben) == await bills_of(ann)
        assert (await bills_of(ben))["bad"] == wanted and "worse" not in await bills_of(ben)
        left = [(entry.id, entry.what) for entry in await ann.quarantine.entries()]
        assert ("bad", "a row") not in left and len(left) == len(entries) - 2
        with pytest.raises(ConflictError, match="it is not in the quarantine any more"):
            await ann.quarantine.bring_back(bad, {"amount": 8})
        assert (await bills_of(ann))["bad"].amount == 7


async def test_where_there_is_a_row_by_now_only_what_is_given_is_set(tmp_path: Path) -> None:
    place = await begun(tmp_path)
    async with place.device("ann", NEW) as ann:
        bad = next(entry for entry in await ann.quarantine.entries() if (entry.id, entry.what) == ("bad", "a row"))
        await ann.store(BILLS).insert(After("bad", 1, "written since", more=9))
        await ann.quarantine.bring_back(bad, {"amount": 7})
        assert (await bills_of(ann))["bad"] == After("bad", 7, "written since", more=9)


async def test_what_is_let_go_of_is_gone_and_what_is_wrong_leaves_the_entry(tmp_path: Path) -> None:
    place = await begun(tmp_path)
    async with place.device("ann", NEW) as ann:
        worse = next(entry for entry in await ann.quarantine.entries() if entry.id == "worse")
        before = list(await ann.quarantine.entries())
        for fields, message in (
            ({}, "missing 1 required positional argument: 'amount'"),
            ({"amount": "x"}, "amount"),
            ({"amount": 1, "note": "?"}, "there is no field 'note' to set; it has: amount, text, picture, more"),
            ({"amount": 1, "id": "other"}, "there is no field 'id'"),
        ):
            with pytest.raises(ValidationError, match=message):
                await ann.quarantine.bring_back(worse, fields)
        assert list(await ann.quarantine.entries()) == before and "worse" not in await bills_of(ann)
        await ann.quarantine.discard(worse)
        assert worse not in await ann.quarantine.entries()
        for call in (ann.quarantine.discard(worse), ann.quarantine.discard(replace(worse, number=999))):
            with pytest.raises(ConflictError):
                await call
    async with place.device("ann", NEW) as ann:
        assert worse not in await ann.quarantine.entries(), "for good"


async def test_a_file_that_was_never_migrated_has_none_and_a_client_without_a_file_neither(tmp_path: Path) -> None:
    async with open_client(NEW, plugins=[LocalExecution(SQLiteEngine(tmp_path / "a.db"))]) as client:
        assert list(await client.quarantine.entries()) == []
    async with open_client(NEW, plugins=[Remote(MemoryTransport(MemoryNetwork()))], policy="direct-remote") as client:
        with pytest.raises(PluginError, match="this client has no file"):
            client.quarantine  # noqa: B018


async def test_the_command_line_lists_brings_back_and_discards(tmp_path: Path) -> None:
    place = await begun(tmp_path)
    file = str(place.folder / "ann.db")
    async with place.device("ann", NEW):
        pass
    told = atoma("quarantine", "list", file)
    assert (
        told.code == 3
        and "a device's file, " in told.out
        and '{"amount":"one","note":"kept","picture":"01ff"}' in told.out
    )
    found = {
        (entry["id"], entry["what"]): entry["number"]
        for entry in json.loads(atoma("quarantine", "list", file, "--json").out)
    }
    number = str(found["bad", "a row"])
    for fields, message in (
        (["amount=x"], "amount"), (["much=1"], "bills has: amount, text, picture, more"), ([], "the row may have to be made")
    ):  # fmt: skip
        refused = await atoma_beside("quarantine", "bring-back", file, number, *fields, "--schema", NAMED)
        assert refused.code == 1 and message in refused.err
    assert (await atoma_beside("quarantine", "bring-back", file, "999", "--schema", NAMED)).code == 1
    done = await atoma_beside("quarantine", "bring-back", file, number, "amount=7", "text=by hand", "--schema", NAMED)
    assert done.code == 0 and "bills bad was written again" in done.out, done
    assert atoma("quarantine", "discard", file, "998", "999").code == 1
    left = [str(one["number"]) for one in json.loads(atoma("quarantine", "list", file, "--json").out)]
    assert number not in left
    assert "discarded" in atoma("quarantine", "discard", file, *left).out
    assert atoma("quarantine", "list", file).out == f"{file}: a device's file, nothing in quarantine\n"
    async with place.hub(NEW), place.device("ann", NEW) as ann, place.device("ben", NEW) as ben:
        await settle(ann)
        await settle(ben)
        assert (await bills_of(ben))["bad"] == After("bad", 7, "by hand", b"\x01\xff")


async def test_a_hubs_quarantine_is_listed_and_let_go_of_while_it_stands_still(tmp_path: Path) -> None:
    place = await begun(tmp_path)
    file = str(place.folder / "hub.db")
    async with place.hub(NEW):
        told = atoma("quarantine", "list", file)
        assert told.code == 3 and "a hub's file" in told.out and "bad  a row of version 1" in told.out
        busy = atoma("quarantine", "discard", file, "1", "--json")
        assert json.loads(busy.out)["error"]["code"] == StoreBusy.code
    refused = await atoma_beside("quarantine", "bring-back", file, "1", "amount=1", "--schema", NAMED)
    assert refused.code == 1 and "write the row on one of them" in refused.err
    numbers = [str(one["number"]) for one in json.loads(atoma("quarantine", "list", file, "--json").out)]
    assert atoma("quarantine", "discard", file, *numbers).code == 0
    assert atoma("quarantine", "list", file).code == 0
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    async with place.hub(NEW):
        pass
