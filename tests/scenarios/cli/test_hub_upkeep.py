"""``atoma hub init | tokens | new-epoch | compact | verify``, on a file and on PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tomllib
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from atoma.cli.reports import Exit
from atoma.cli.serving import store_at
from atoma.cli.tokens import TokenFile
from atoma.contracts.mutations import Op
from atoma.contracts.sync import DevicePolicy
from atoma.errors import AuthenticationError
from atoma.hub import AllowLoopback, RowRule, StaticTokenVerifier, open_hub, token_digest
from atoma.ports import Peer, Principal
from atoma.query import col
from atoma.schema import Schema, StoreSpec
from atoma_stores.sqlite import SQLiteHubStore
from atoma_stores.sqlite.hub_lock import sole_hub
from atoma_transports.serving import open_server
from tests.scenarios.cli.kit import (
    SCHEMA,
    SETTINGS,
    TASKS,
    TOKEN,
    atoma_beside,
    device,
    running_hub,
    settle,
    task,
    titles,
    write,
)
from tests.scenarios.migrations.versions import Item1, Place
from tests.scenarios.migrations.versions import items as place_items
from tests.scenarios.migrations.versions import settle as settle_versions
from tests.unit.hub.homes import PostgreSQLHome
from tests.unit.hub.kit import Client as HubClient
from tests.unit.hub.kit import direct

pytestmark = pytest.mark.xdist_group("machine")
NAMED = ("--schema", "tests.scenarios.cli.kit:SCHEMA")
HERE = Peer("127.0.0.1", True, "websocket")


@contextlib.contextmanager
def place_of(kind: str, folder: Path) -> Iterator[str]:
    with contextlib.ExitStack() as stack:
        yield str(folder / "hub.db") if kind == "file" else PostgreSQLHome(stack).address()


async def test_what_init_makes_is_served_and_nothing_is_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "my hub"
    answer = await atoma_beside("hub", "init", folder, *NAMED, "--subject", "ann", "--json")
    assert answer.code == 0, answer
    made = json.loads(answer.out)
    assert sorted(path.name for path in folder.iterdir()) == [
        "atoma-hub.service",
        "hub.db",
        "hub.db.hub-lock",
        "tokens.toml",
    ]
    assert made["token"] not in "".join(path.read_text() for path in folder.glob("*.[ts]*"))
    assert (folder / "tokens.toml").stat().st_mode & 0o077 == 0
    assert f'"{folder}/hub.db"' in (folder / "atoma-hub.service").read_text()
    assert await TokenFile(folder / "tokens.toml").verify(made["token"], HERE) == Principal("ann")
    async with running_hub(folder / "hub.db") as (_, url):
        await write(tmp_path / "a.db", url, [1])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = await atoma_beside("hub", "init", folder, *NAMED)
    assert again.code == 1 and "exists already; nothing was created" in again.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


async def test_an_init_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "h"
    folder.mkdir()
    with sole_hub(str(folder / "hub.db")):
        assert "another hub is running" in (await atoma_beside("hub", "init", folder, *NAMED)).err
    assert [path.name for path in folder.iterdir()] == ["hub.db.hub-lock"]
    wrong = await atoma_beside("hub", "init", folder, *NAMED, "--database", "hub.db")
    assert wrong.code == 1 and "--database must begin with postgresql://" in wrong.err
    for option, told in (("--listen=nowhere", "an address to listen on"), ("--subject=a\nb", "printable characters")):
        wrong = await atoma_beside("hub", "init", tmp_path / "w", *NAMED, option)
        assert wrong.code == 1 and told in wrong.err and not (tmp_path / "w").exists(), wrong


async def test_tokens_are_shown_once_and_revoked_and_the_rest_of_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text('# mine\n[bob]  # first\ntoken = "a long secret of bob"\n\n[bob.scopes]\nred = "read"\n# the end\n')
    path.chmod(0o640)
    added = json.loads(
        (
            await atoma_beside(
                "hub", "tokens", "add", path, "ann o'x", "--scope", "red=write", "--scope", "a b=none", "--json"
            )
        ).out
    )
    assert added["token"] not in path.read_text() and path.stat().st_mode & 0o777 == 0o640
    tokens = TokenFile(path)
    assert await tokens.verify(added["token"], HERE) == Principal("ann o'x")
    assert [tokens.scope_access(Principal("ann o'x"), name) for name in ("red", "a b", "x")] == [
        "write",
        "none",
        "none",
    ]
    assert await tokens.verify("a long secret of bob", HERE) == Principal("bob")
    with pytest.raises(AuthenticationError):
        await tokens.verify(token_digest(added["token"]), HERE)
    listed = (await atoma_beside("hub", "tokens", "list", path)).out
    assert "2 subjects" in listed and "bob  red read  (the token itself is in the file)" in listed
    assert "secret" not in listed and added["token"] not in listed
    assert (await atoma_beside("hub", "tokens", "revoke", path, "bob")).code == 0
    assert path.read_text().startswith("# mine\n") and list(tomllib.loads(path.read_text())) == ["ann o'x"]
    for arguments, told in (
        (("add", path, "ann o'x"), "revoke it first"),
        (("add", path, "eve", "--scope", "red=all"), "--scope takes a scope and"),
        (("add", path, ""), "1 to 255 printable characters"),
        (("revoke", path, "bob"), "there is no bob"),
        (("revoke", path, "ann o'x"), "the last subject"),
        (("list", tmp_path / "no.toml"), "no.toml"),
    ):
        before = path.read_bytes()
        answer = await atoma_beside("hub", "tokens", *arguments)
        assert answer.code == 1 and told in answer.err and path.read_bytes() == before
    fresh = tmp_path / "fresh.toml"
    assert (await atoma_beside("hub", "tokens", "add", fresh, "ann")).code == 0
    assert fresh.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ['bob.token = "x"\n[ann]\ntoken = "y"\n', '[ann]\ntoken = "y"\n[bob]\ntoken = """\n[ann]\n"""\n']
)
async def test_a_file_that_is_written_in_an_unusual_way_is_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    answer = await atoma_beside("hub", "tokens", "revoke", path, "bob" if text.startswith("bob") else "ann")
    assert answer.code == 1 and "edit it yourself" in answer.err and path.read_text() == text


async def lost(tmp_path: Path) -> Path:
    """A hub whose file went back to task 1 with its lock file, so that nothing tells of it; a device has seen task 2."""
    hub_file, file = tmp_path / "hub.db", tmp_path / "a.db"
    async with running_hub(hub_file) as (_, url):
        await write(file, url, [1])
    kept = hub_file.read_bytes(), (tmp_path / "hub.db.hub-lock").read_bytes()
    async with running_hub(hub_file) as (_, url):
        await write(file, url, [2])
    hub_file.write_bytes(kept[0])
    (tmp_path / "hub.db.hub-lock").write_bytes(kept[1])
    return hub_file


@pytest.mark.parametrize(("word", "back"), [("offer", 2), ("forget", 1)])
async def test_a_new_epoch_says_what_devices_do(word: DevicePolicy, back: int, tmp_path: Path) -> None:
    hub_file = await lost(tmp_path)
    answer = await atoma_beside("hub", "new-epoch", hub_file, "--devices", word, "--json")
    assert answer.code == 0, answer
    async with running_hub(hub_file) as (hub, url):
        assert [hub.identity.epoch.hex()] == [json.loads(answer.out)["epoch"]]
        assert [ended.devices for ended in await hub.epochs()] == [word]
        async with device(tmp_path / "a.db", url) as client:
            await settle(client)
        busy = await atoma_beside("hub", "new-epoch", hub_file, "--devices", word)
        assert busy.code == 1 and "another hub is running" in busy.err
    assert len(titles(hub_file)) == back


async def test_the_word_holds_for_a_file_that_was_copied_back(tmp_path: Path) -> None:
    """The hub would find out by itself, and let devices offer; the operator has said otherwise before it could."""
    hub_file, file = tmp_path / "hub.db", tmp_path / "a.db"
    async with running_hub(hub_file) as (_, url):
        await write(file, url, [1])
    kept = hub_file.read_bytes()
    async with running_hub(hub_file) as (_, url):
        await write(file, url, [2])
    hub_file.write_bytes(kept)
    assert (await atoma_beside("hub", "new-epoch", hub_file, "--devices", "forget")).code == 0
    async with running_hub(hub_file) as (hub, url):
        assert [ended.devices for ended in await hub.epochs()] == ["forget"]
        async with device(file, url) as client:
            await settle(client)
    assert titles(hub_file) == ["task 1"]


@pytest.mark.parametrize("kind", ["file", "postgresql"])
async def test_a_hub_is_compacted_verified_and_given_an_epoch(kind: str, tmp_path: Path) -> None:
    with place_of(kind, tmp_path) as where:
        made = tmp_path / "made"
        database = ("--database", where) if kind == "postgresql" else ()
        assert (await atoma_beside("hub", "init", made, *NAMED, *database)).code == 0
        where = where if kind == "postgresql" else str(made / "hub.db")
        async with hub_at(where) as url:
            async with device(tmp_path / "a.db", url) as client:
                for number in range(6):
                    await client.store(TASKS).insert(task(number))
                await client.store(TASKS).delete("5")
                await settle(client)
            beside = await atoma_beside("hub", "verify", where, *NAMED)
            assert beside.code == 0 and "sound; 7 transactions of 1 scope, 7 changes" in beside.out, beside
        answer = await atoma_beside("hub", "compact", where, *NAMED, "--keep", 2, "--keep-days", 0, "--force", "--json")
        assert answer.code == 0 and json.loads(answer.out)["transactions"] == 5, answer
        verified = json.loads((await atoma_beside("hub", "verify", where, *NAMED, "--json")).out)
        assert (verified["transactions"], verified["problems"]) == (2, [])
        assert (await atoma_beside("hub", "new-epoch", where, *NAMED, "--devices", "ask")).code == 0
        async with hub_at(where) as url, device(tmp_path / "b.db", url) as client:
            await settle(client)
            assert await client.store(TASKS).count() == 5
        if kind == "postgresql":
            for command in (("compact",), ("verify",), ("new-epoch", "--devices", "ask")):
                refused = await atoma_beside("hub", *command, where)
                assert refused.code == 1 and "needs --schema" in refused.err


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    id: str
    title: str
    number: int | None = None


PAPERS = Schema(StoreSpec("papers", Paper, scope="main", hub_fields=["number"], merge={"title": "custom"}))


async def test_upkeep_needs_no_functions_of_an_application_and_serving_does(tmp_path: Path) -> None:
    named = ("--schema", f"{__name__}:PAPERS")
    hub_file = tmp_path / "hub.db"
    async with open_hub(
        PAPERS,
        SQLiteHubStore(hub_file),
        verifier=AllowLoopback(),
        hub_fields={"papers": {"number": lambda of: of.counter()}},
        conflicts={"papers": {"title": lambda met: met.theirs}},
    ) as hub:
        for number in range(2):
            row = Op("create", "papers", str(number), {"title": "t"})
            await HubClient.of(hub, "a", "ann").service.write(direct(row, idem=str(number)))
    compacted = await atoma_beside("hub", "compact", hub_file, *named, "--keep", 1, "--keep-days", 0, "--force")
    assert (compacted.code, compacted.out) == (0, f"{hub_file}: 1 transaction, 2 answers removed\n")
    serve = ("serve", tmp_path / "b.db", "--loopback")
    for command in (serve, ("init", tmp_path / "made")):
        refused = await atoma_beside("hub", *command, *named)
        assert refused.code == 1 and "papers.number, papers.title" in refused.err and "open_hub(" in refused.err, (
            refused
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub.db", "hub.db.hub-lock"]


async def test_upkeep_decides_nothing_that_other_programs_have_left(tmp_path: Path) -> None:
    """The rules of the application are not there: a row that they would refuse waits for a hub that has them."""
    with contextlib.ExitStack() as stack:
        home = PostgreSQLHome(stack)
        where = home.address()
        assert (await atoma_beside("hub", "init", tmp_path / "made", *NAMED, "--database", where)).code == 0
        values = "jsonb_build_object('value', 'of nobody')"
        home.ask(f"SELECT atoma.write('main', 'settings', 'insert', '1', {values}, 'k')")
        for command in (("compact", "--force"), ("new-epoch", "--devices", "ask"), ("verify",)):
            assert (await atoma_beside("hub", *command, where, *NAMED)).code == 0
        assert home.ask("SELECT atoma.answer('k')") == [(None,)]
        mine: Mapping[str, RowRule] = {"settings": lambda caller: col("value") == caller.subject}
        async with open_hub(SCHEMA, home.store(), verifier=AllowLoopback(), row_rules=mine):
            with trio.fail_after(60):
                while (answer := home.ask("SELECT atoma.answer('k')")[0][0]) is None:
                    await trio.sleep(0.01)
        assert isinstance(answer, dict) and (answer["ok"], answer["code"]) == (False, "DENIED"), answer


NEWER = Schema(TASKS, SETTINGS, StoreSpec("papers", Paper), version=4)


@pytest.mark.parametrize("kind", ["file", "postgresql"])
async def test_what_is_made_is_not_brought_to_another_schema_unasked(kind: str, tmp_path: Path) -> None:
    newer = ("--schema", f"{__name__}:NEWER")
    with place_of(kind, tmp_path) as where:
        store = store_at(where)
        empty = await atoma_beside("hub", "compact", where, *NAMED)
        assert empty.code == 1 and ("no hub" if kind == "postgresql" else "no such file") in empty.err, empty
        async with open_hub(SCHEMA, store, verifier=AllowLoopback()):
            pass
        for command in (("compact",), ("init", tmp_path / "made", "--database")):
            if kind == "postgresql" or command == ("compact",):
                answer = await atoma_beside("hub", *command, where, *newer)
                assert answer.code == 1 and "atoma migrate" in answer.err, answer
        assert not (tmp_path / "made").exists()
        async with open_hub(SCHEMA, store, verifier=AllowLoopback()) as hub:  # of version 3, still
            assert hub.schema.version == 3


@contextlib.asynccontextmanager
async def hub_at(where: str) -> AsyncGenerator[str]:
    """A hub on a file or a database; the address of its port."""
    async with open_hub(SCHEMA, store_at(where), verifier=StaticTokenVerifier({TOKEN: "ann"})) as hub:
        async with open_server(hub, "127.0.0.1:0") as address:
            yield f"ws://{address}/sync"


async def filled(tmp_path: Path) -> Path:
    hub_file = tmp_path / "hub.db"
    async with running_hub(hub_file) as (_, url), device(tmp_path / "a.db", url) as client:
        for number in range(5):
            await client.store(TASKS).insert(task(number))
        await client.store(TASKS).update("1", title="new")
        await client.store(TASKS).delete("2")
        await settle(client)
    return hub_file


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("UPDATE tasks SET title='forged' WHERE id='3'", "tasks/3: title is not as transaction"),
        ("DELETE FROM tasks WHERE id='3'", "tasks/3: it is missing, and transaction"),
        ("UPDATE tasks SET _seq=1 WHERE id='3'", "tasks/3: it says that transaction 1 has changed it last"),
        ("UPDATE _atoma_hub_client SET seen_ms=1", ""),
        ("UPDATE _atoma_hub_change SET post=x'80' WHERE seq=4", "its hash is not that of what it holds"),
        ("UPDATE _atoma_hub_change SET id='33' WHERE seq=4", "its hash is not that of what it holds"),
        ("UPDATE _atoma_hub_tx SET hash=zeroblob(16) WHERE seq=4", "transaction 5: its hash is not"),
        ("DELETE FROM _atoma_hub_change WHERE seq=4", "it has 0 of 1 changes"),
        ("DELETE FROM _atoma_hub_tx WHERE seq=4", "transactions 4 to 4 are missing"),
        ("DELETE FROM _atoma_hub_tx WHERE seq=7", "transactions 7 to 7 are missing"),
        ("UPDATE _atoma_hub_scope SET head_hash=zeroblob(16)", "another hash than its head 7"),
        ("DELETE FROM _atoma_hub_tombstone", "tasks/2: transaction 7 has deleted it, and no tombstone"),
        ("DELETE FROM _atoma_hub_outcome WHERE mid=7", "verdicts up to"),
        ("UPDATE _atoma_hub_outcome SET seq=99 WHERE mid=7", "was accepted at 99"),
        ("UPDATE _atoma_hub_outcome SET status='rejected' WHERE mid=7", "its mutation 7 is rejected"),
        ("UPDATE _atoma_hub_tx SET mid=6 WHERE seq=7", "was decided 2 times"),
        ("UPDATE tasks SET _scope='green' WHERE id='3'", "tasks/3 is in the scope 'green', which is not there"),
    ],
)
async def test_what_does_not_agree_in_a_hubs_file_is_found(sql: str, told: str, tmp_path: Path) -> None:
    hub_file = await filled(tmp_path)
    with contextlib.closing(sqlite3.connect(hub_file)) as connection, connection:
        connection.execute(sql)
    answer = await atoma_beside("hub", "verify", hub_file)
    assert answer.code == (Exit.FOUND if told else Exit.DONE) and told in answer.out, answer


def tables_of(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")}


async def test_what_a_migration_has_converted_is_said(tmp_path: Path) -> None:
    """Its hashes are of what was before; what is written from then on is compared as ever."""
    place, hub_file = Place(tmp_path), tmp_path / "hub.db"
    async with place.hub(1), place.device("ann", 1) as ann:
        await place_items(ann).insert_many([Item1(f"{at}", f"item {at}", at) for at in range(3)])
        await settle_versions(ann)
    tables = tables_of(hub_file)
    assert (await atoma_beside("migrate", hub_file, "--schema", "tests.scenarios.migrations.versions:NEWEST")).code == 0
    assert tables_of(hub_file) == tables | {"_atoma_quarantine"}, "and none of a device's"
    async with place.hub(4), place.device("ann", 4) as ann:
        await place_items(ann).delete("1")
        await settle_versions(ann)
    told = await atoma_beside("hub", "verify", hub_file)
    assert told.code == 0 and "3 transactions of them were converted by a migration" in told.out, told
    with contextlib.closing(sqlite3.connect(hub_file)) as connection, connection:
        connection.execute("UPDATE _atoma_hub_tx SET hash=zeroblob(16) WHERE seq=4")
    assert "transaction 4: its hash is not" in (await atoma_beside("hub", "verify", hub_file)).out
