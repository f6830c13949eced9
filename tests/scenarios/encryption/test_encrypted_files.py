"""Files with a key, where the installed apsw encrypts: `test_own_environment.py` runs this in such an environment."""

from __future__ import annotations

import io
import logging
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import pytest
import trio

from atoma.cli.assistants import serve
from atoma.client import open_client
from atoma.errors import AtomaError, ConfigurationError, ForeignLog, StoreBusy, StoreCorrupt, WrongKey
from atoma.ports import Environment
from atoma.query import select
from atoma.schema import Rename, Schema, StoreSpec
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, change_key, make_prebuilt
from atoma_stores.sqlite.encryption import FileKey
from atoma_stores.sqlite.files import back_up
from tests.paths import memory
from tests.scenarios.cli.kit import atoma_beside
from tests.scenarios.encryption.device import (
    CANARIES,
    DRAFTS,
    KEY,
    NOTES,
    OTHER,
    ROWS,
    SCHEMA,
    STEPS,
    Note,
    engine,
    opened,
    write,
)

pytestmark = pytest.mark.skipif(
    not hasattr(apsw, "mc_version"),
    reason="the installed apsw does not encrypt; test_own_environment.py has one that does",
)
DEVICE = Path(__file__).with_name("device.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Titled:
    id: str
    title: str


PASSPHRASE = "it's a long passphrase ü"
SECONDS_MAX = 60


def plain_text(folder: Path) -> set[tuple[str, str]]:
    """Which canaries can be read in which files of a folder."""
    files = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert files
    return {(path.name, canary) for path, held in files.items() for canary in CANARIES if canary.encode() in held}


def run_device(path: Path, what: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEVICE), str(path), what]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)


async def count(path: Path, key: bytes | str | None) -> int:
    async with opened(path, key) as client:
        note = await client.store(NOTES).get("1")
        assert note is not None
        assert note.text == CANARIES[1]
        assert client.sync.status.pending == 2
        return await client.store(DRAFTS).count()


@pytest.mark.parametrize("key", [KEY, PASSPHRASE], ids=["key", "passphrase"])
async def test_nothing_of_a_file_can_be_read_while_it_is_open_and_after(key: bytes | str, tmp_path: Path) -> None:
    async with opened(tmp_path / "app.db", key) as client:
        await write(client)
        assert (tmp_path / "app.db-wal").stat().st_size > 20_000
        assert plain_text(tmp_path) == set()
    assert plain_text(tmp_path) == set()
    assert await count(tmp_path / "app.db", key) == ROWS


async def test_without_a_key_every_canary_is_seen(tmp_path: Path) -> None:
    async with opened(tmp_path / "app.db", None) as client:
        await write(client)
        assert {canary for _, canary in plain_text(tmp_path)} == set(CANARIES)


@pytest.mark.xdist_group("machine")
async def test_nothing_can_be_read_after_kill_9(tmp_path: Path) -> None:
    done = run_device(tmp_path / "app.db", "die")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "written\n"), done.stderr
    assert (tmp_path / "app.db-wal").stat().st_size > 0
    assert plain_text(tmp_path) == set()
    assert await count(tmp_path / "app.db", KEY) == ROWS
    assert plain_text(tmp_path) == set()


@pytest.mark.parametrize("key", [KEY, PASSPHRASE], ids=["key", "passphrase"])
@pytest.mark.parametrize("way", ["cp", "backup"])
async def test_an_older_copy_under_the_log_of_a_killed_program_is_refused(
    key: bytes | str, way: str, tmp_path: Path
) -> None:
    """One that a backup has made was called damaged: with a passphrase it has a salt of its own."""
    path, older, crashed = (tmp_path / name for name in ("app.db", "older.db", "crashed.db"))
    async with opened(path, key) as client:
        await write(client)
    if way == "cp":
        shutil.copy(path, older)
    else:
        back_up(str(path), str(older), lambda _done, _total: None, FileKey(key))
    for number in range(2):
        async with opened(path, key) as client:
            await client.store(DRAFTS).delete(str(number))
            shutil.copy(tmp_path / "app.db-wal", tmp_path / "crashed.db-wal")
    shutil.copy(older, crashed)
    with pytest.raises(ForeignLog, match=r"move .*crashed\.db-wal away"):
        await count(crashed, key)
    assert crashed.read_bytes() == older.read_bytes()
    (tmp_path / "crashed.db-wal").unlink()
    assert await count(crashed, key) == ROWS


async def test_no_temporary_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[int] = []

    class Watching(apsw.VFS):
        def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
            kinds.append(flags[0])
            return apsw.VFSFile("", name, flags)

    watching = Watching("watching", "", iVersion=2)
    path, environment = tmp_path / "app.db", replace(Environment(), executor="inline")
    chosen = SQLiteEngine(path, key=KEY, vfs="watching")
    async with chosen.open_database(SCHEMA, environment, frozenset()) as database:
        await database.sqlite.transact(lambda c: c.execute("CREATE TEMP TABLE spill(a, b)"))
        await database.sqlite.transact(
            lambda c: c.executemany(
                "INSERT INTO spill VALUES(?,?)", ((random.random(), CANARIES[0] * 40) for _ in range(20_000))
            )
        )
        await database.sqlite.read(lambda c: c.execute("SELECT * FROM spill ORDER BY b, a LIMIT 1").get)
    del watching
    temporary = apsw.SQLITE_OPEN_TEMP_DB | apsw.SQLITE_OPEN_TEMP_JOURNAL | apsw.SQLITE_OPEN_TRANSIENT_DB
    assert kinds
    assert not any(kind & (temporary | apsw.SQLITE_OPEN_SUBJOURNAL) for kind in kinds)


# what does not go together


def foreign(path: Path) -> Path:
    path.write_bytes(random.Random(1).randbytes(8192))
    return path


@pytest.mark.parametrize(
    ("had", "given", "said"),
    [
        (KEY, OTHER, "the key is not this file's"),
        (KEY, PASSPHRASE, "the key is not this file's"),
        (PASSPHRASE, "another passphrase", "the key is not this file's"),
        (KEY, None, "this file is encrypted; open it with its key"),
        (None, KEY, "this file is not encrypted, and a key was given"),
        (None, PASSPHRASE, "this file is not encrypted, and a key was given"),
    ],
    ids=["another key", "a passphrase", "another passphrase", "no key", "key for a plain file", "passphrase for one"],
)
async def test_a_key_that_is_not_the_files_is_one_error(
    had: bytes | str | None, given: bytes | str | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "app.db"
    async with engine(path, had).open_database(SCHEMA, Environment(), frozenset()):
        pass
    before = path.read_bytes()
    with pytest.raises(WrongKey, match=said) as caught:
        async with engine(path, given).open_database(SCHEMA, Environment(), frozenset()):
            pass
    assert str(path) in str(caught.value)
    assert caught.value.code == "WRONG_KEY"
    assert path.read_bytes() == before
    async with engine(path, had).open_database(SCHEMA, Environment(), frozenset()):
        pass


async def test_a_file_of_something_else_is_not_called_encrypted(tmp_path: Path) -> None:
    with pytest.raises(StoreCorrupt, match="not a SQLite database"):
        async with engine(foreign(tmp_path / "a.db"), None).open_database(SCHEMA, Environment(), frozenset()):
            pass


@pytest.mark.parametrize("key", [b"short", "", "a\0b", "raw:00", "\ud800", 7, KEY.decode("latin-1").encode() + b"x"])
def test_what_is_no_key_is_refused_without_being_shown(key: object) -> None:
    with pytest.raises(ConfigurationError, match=r"32 random bytes|UTF-8") as caught:
        SQLiteEngine("app.db", key=key)  # type: ignore[arg-type]
    assert not key or repr(key) not in str(caught.value)


def test_a_key_needs_a_disk_and_a_vfs_that_encrypts(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="in memory"):
        SQLiteEngine(memory(), key=KEY)

    class Bare(apsw.VFS):
        pass

    bare = Bare("bare", "unix")

    async def open_bare() -> None:
        chosen = SQLiteEngine(tmp_path / "app.db", key=KEY, vfs="bare")
        async with chosen.open_database(SCHEMA, replace(Environment(), executor="inline"), frozenset()):
            pass

    with pytest.raises(ConfigurationError, match="VFS") as caught:
        trio.run(open_bare)
    assert KEY.hex() not in told(caught.value)
    del bare


# keys are not shown


def told(error: BaseException) -> str:
    """What a tool that shows local variables makes of an error, with everything that it is chained to."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    for frame in shown.stack:
        if frame.filename == __file__ and frame.locals:
            frame.locals.clear()  # the caller has the key
    return "".join(shown.format())


def spellings(key: bytes | str) -> Iterator[str]:
    if isinstance(key, bytes):
        yield from (key.hex(), repr(key), repr(key)[2:-1])
    else:
        yield key
        yield key.replace("'", "''")


@pytest.mark.parametrize("key", [OTHER, PASSPHRASE], ids=["key", "passphrase"])
async def test_no_error_log_or_repr_has_the_key(
    key: bytes | str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    chosen = engine(tmp_path / "own.db", key)
    shown = [repr(chosen), str(vars(chosen)), repr(chosen.key)]
    async with chosen.open_database(SCHEMA, Environment(), frozenset()) as database:
        cached = await database.sqlite.read(lambda c: c.cache_stats(include_entries=True))
        shown += [repr(database), repr(vars(database.sqlite)), repr(cached)]
    async with opened(tmp_path / "app.db"):
        pass
    for attempt in (engine(tmp_path / "app.db", key), SQLiteEngine(tmp_path / "app.db", key=key, vfs="nowhere")):
        with pytest.raises(AtomaError) as caught:
            async with attempt.open_database(SCHEMA, Environment(), frozenset()):
                pass
        shown.append(told(caught.value))
    with pytest.raises(ConfigurationError) as refused:
        SQLiteEngine(tmp_path / "app.db", key=key, durability="none")  # type: ignore[arg-type]
    shown.append(told(refused.value))
    with pytest.raises(WrongKey) as wrong:
        change_key(tmp_path / "app.db", old=key, new=key)
    shown.append(told(wrong.value))
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(chosen)
    shown.append(caplog.text)
    for spelling in spellings(key):
        assert not [text for text in shown if spelling in text]


# another key


@pytest.mark.parametrize(
    ("old", "new"), [(KEY, OTHER), (KEY, PASSPHRASE), (PASSPHRASE, KEY), (None, KEY), (KEY, None), (KEY, KEY)]
)
async def test_a_file_gets_another_key(old: bytes | str | None, new: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with opened(path, old) as client:
        await write(client)
    path.chmod(0o640)
    change_key(path, old=old, new=new)
    assert (plain_text(tmp_path) == set()) == (new is not None)
    assert path.stat().st_mode & 0o777 == 0o640
    assert await count(path, new) == ROWS
    assert sorted(found.name for found in tmp_path.iterdir()) == ["app.db"]
    if old != new:
        with pytest.raises(WrongKey):
            await count(path, old)


async def test_a_file_that_is_open_keeps_its_key(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with opened(path) as client:
        await write(client)
        with pytest.raises(StoreBusy, match="a program has the file open"):
            change_key(path, old=KEY, new=OTHER)
        await client.store(DRAFTS).insert(Note(id="more", text=""))
    assert await count(path, KEY) == ROWS + 1


@pytest.mark.xdist_group("machine")
async def test_a_change_that_is_killed_leaves_the_old_key_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with opened(path) as client:
        await write(client)
    done = run_device(path, "change")
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(STEPS), done.stderr
    assert plain_text(tmp_path) == set()
    for at, step in enumerate(STEPS):
        copy = tmp_path / f"app.db-{step}"
        has, gets = (KEY, OTHER) if at < 2 else (OTHER, KEY)
        assert await count(copy, has) == ROWS
        change_key(copy, old=has, new=gets)
        assert await count(copy, gets) == ROWS
    assert not list(tmp_path.glob("*.unfinished"))


async def test_nobody_writes_while_the_key_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "app.db"
    async with opened(path) as client:
        await write(client)
    refused: list[bool] = []

    def tried(_descriptor: int) -> None:  # the copy is made, and has not taken the place of the file
        other = apsw.Connection(str(path))
        other.execute(f"PRAGMA key='raw:{KEY.hex()}'")
        try:
            other.execute("CREATE TABLE lost(a)")
            refused.append(False)
        except (apsw.BusyError, apsw.NotADBError):
            refused.append(True)
        finally:
            other.close()

    monkeypatch.setattr(os, "fsync", tried)
    change_key(path, old=KEY, new=OTHER)
    assert refused == [True, True]


async def test_who_waits_for_a_file_that_gets_another_key_writes_nothing_that_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with opened(path) as client:
        await write(client)
    early = apsw.Connection(str(path))  # it has the file open, and no lock on it yet
    early.execute(f"PRAGMA key='raw:{KEY.hex()}'")
    change_key(path, old=KEY, new=OTHER)
    with pytest.raises(apsw.NotADBError):
        early.execute("CREATE TABLE lost(a)")
    early.close()


# copies


async def test_the_copy_before_a_migration_has_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with engine(path).open_database(SCHEMA, Environment(), frozenset()):
        pass
    async with open_client(SCHEMA, plugins=[LocalExecution(engine(path))]) as client:
        await client.store(DRAFTS).insert(Note(id="1", text=CANARIES[0]))
    titled = StoreSpec("drafts", Titled)
    after = Schema(NOTES, titled, version=2, steps={2: [Rename("drafts.text", "title")]})
    async with open_client(after, plugins=[LocalExecution(engine(path))]) as client:
        assert [row.title for row in await client.query(select(titled))] == [CANARIES[0]]
    assert plain_text(tmp_path) == set()
    async with open_client(SCHEMA, plugins=[LocalExecution(engine(tmp_path / "app.db.version-1"))]) as client:
        assert [row.text for row in await client.query(select(DRAFTS))] == [CANARIES[0]]


async def test_a_pre_built_file_is_plain_and_what_begins_with_it_is_not(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(source / "a.db", key=KEY))]) as client:
        await client.store(DRAFTS).insert(Note(id="1", text=CANARIES[0]))
    with pytest.raises(WrongKey, match="this file is encrypted"):
        make_prebuilt(source / "a.db", tmp_path / "ship.db")
    make_prebuilt(source / "a.db", tmp_path / "ship.db", key=KEY)
    assert plain_text(source) == set()
    assert plain_text(tmp_path) == {("ship.db", CANARIES[0])}
    begun = tmp_path / "begun"
    begun.mkdir()
    chosen = SQLiteEngine(begun / "b.db", key=OTHER, prebuilt=tmp_path / "ship.db")
    async with open_client(SCHEMA, plugins=[LocalExecution(chosen)]) as client:
        assert [row.text for row in await client.query(select(DRAFTS))] == [CANARIES[0]]
        assert plain_text(begun) == set()


async def test_two_programs_share_an_encrypted_file(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with opened(path) as one, opened(path) as other:
        async with other.live(select(DRAFTS)) as batches:
            await anext(batches)
            await one.store(DRAFTS).insert(Note(id="1", text="seen"))
            with trio.fail_after(SECONDS_MAX):
                await anext(batches)
        assert [note.text for note in await other.query(select(DRAFTS))] == ["seen"]


async def test_every_command_takes_the_key_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "app.db"
    async with opened(file) as client:
        await write(client)
    schema = ("--schema", "tests.scenarios.encryption.device:SCHEMA")
    commands: dict[tuple[object, ...], tuple[int, str]] = {
        ("query", file, "SELECT count(*) FROM notes"): (0, "2"),
        ("top", file, "--looks", 1): (0, "notes"),
        ("doctor", file, "--bundle", tmp_path / "bundle.zip"): (0, "Nothing is wrong"),
        ("check", file): (0, "sound"),
        ("backup", file, tmp_path / "copy.db"): (0, "copy.db"),
        ("export", file, "notes", tmp_path / "notes.ndjson", *schema): (0, "2 rows"),
        ("import", file, "notes", tmp_path / "notes.ndjson", *schema): (0, "2 already there"),
        ("sync", "status", file): (0, "pending"),
        ("outbox", "list", file): (0, "2 writes"),
        ("outbox", "retry", file): (1, "connected to a hub"),
        ("inbox", "list", file): (0, "nothing in the inbox"),
        ("migrate", file, *schema, "--plan"): (0, "Nothing was changed"),
        ("sync", "new-identity", file): (0, "a new identity at its next contact"),
    }
    for command, (code, told) in commands.items():
        for wrong, message in ((OTHER.hex(), "the key is not this file's"), ("", "this file is encrypted")):
            monkeypatch.setenv("ATOMA_KEY", wrong)
            answer = await atoma_beside(*command)
            assert (answer.code, len(answer.err.splitlines())) == (1, 1), answer
            assert message in answer.err and "--key-file PATH or in the variable ATOMA_KEY" in answer.err
            assert OTHER.hex() not in answer.err
        told_once, teller = os.pipe()  # as a shell's <(…)
        os.write(teller, KEY)
        os.close(teller)
        for known in ((KEY.hex(), ()), ("", ("--key-file", f"/dev/fd/{told_once}"))):
            monkeypatch.setenv("ATOMA_KEY", known[0])
            if command[0] in ("backup", "doctor", "export"):  # none of them writes over anything
                for made in (*tmp_path.glob("copy.db*"), *tmp_path.glob("*.zip"), *tmp_path.glob("*.ndjson")):
                    made.unlink()
            answer = await atoma_beside(*command, *known[1])
            assert answer.code == code and told in answer.out + answer.err, (command, answer)
        os.close(told_once)
    (tmp_path / "notes.ndjson").unlink()
    answers = io.BytesIO()
    serve(
        str(file),
        io.BytesIO(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"describe"}}\n'),
        answers,
        FileKey(KEY),
    )
    assert b'"notes"' in answers.getvalue()
    assert not plain_text(tmp_path)


async def test_a_key_in_a_file_is_digits_bytes_or_a_passphrase(tmp_path: Path) -> None:
    file, given = tmp_path / "0.db", tmp_path / "key"
    keys: list[tuple[bytes | str, bytes]] = [
        (KEY, KEY),
        (KEY, KEY.hex().encode() + b"\n"),
        (PASSPHRASE, PASSPHRASE.encode() + b"\n"),
    ]
    for number, (key, content) in enumerate(keys):
        file = tmp_path / f"{number}.db"
        async with opened(file, key) as client:
            await client.store(NOTES).insert(Note(id="1", text="x"))
        given.write_bytes(content)
        assert (await atoma_beside("check", file, "--key-file", given)).code == 0
    for content, told in ((b"\n", "holds no key"), (b"\xff" * 31, "32 random bytes")):
        given.write_bytes(content)
        answer = await atoma_beside("check", file, "--key-file", given)
        assert answer.code == 1 and told in answer.err
    assert "the key cannot be read" in (await atoma_beside("check", file, "--key-file", tmp_path / "none")).err
