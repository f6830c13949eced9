"""``atoma hub serve`` as people start it: who gets in, what is said, and how it ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from atoma.cli.serving import store_at
from atoma.cli.tokens import TokenFile
from atoma.errors import AuthenticationError, ConfigurationError
from atoma.ports.service import Peer, Principal
from atoma_stores.sqlite import SQLiteHubStore
from tests.scenarios.cli.kit import TASKS, TOKEN, atoma, device, settle, task
from tests.unit.hub.homes import PostgreSQLHome

pytestmark = pytest.mark.xdist_group("machine")
SCHEMA = "tests.scenarios.cli.kit:SCHEMA"
ROOT = Path(__file__).parents[3]
HERE = Peer("127.0.0.1", True, "websocket")


@contextlib.contextmanager
def serving(where: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the address that it said it serves on."""
    command = [
        sys.executable,
        "-m",
        "atoma",
        "hub",
        "serve",
        where,
        "--schema",
        SCHEMA,
        "--listen",
        "127.0.0.1:0",
        *options,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            said = process.stdout.readline()
            assert said.startswith("serving "), process.stderr.read()
            yield process, said.strip().rpartition(" on ")[2]
        finally:
            if process.poll() is None:
                process.kill()


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    return process.returncode, out


@pytest.mark.parametrize("kind", ["file", "postgresql"])
async def test_a_device_syncs_with_it_until_it_is_told_to_stop(kind: str, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[ann]\ntoken = "{TOKEN}"\nscopes = {{ red = "write", blue = "read" }}\n')
    with contextlib.ExitStack() as stack:
        where = str(tmp_path / "hub.db") if kind == "file" else PostgreSQLHome(stack).address()
        process, address = stack.enter_context(serving(where, "--tokens", str(tokens)))
        async with device(tmp_path / "a.db", f"ws://{address}/sync") as client:
            allowed = await client.store(TASKS).insert(task(1))
            denied = await client.store(TASKS).insert(task(2, team="blue"))
            await settle(client)
            assert (allowed.state, denied.state) == ("observed", "rejected")
        code, out = await trio.to_thread.run_sync(end, process)
        assert (code, out) == (0, "stopping: SIGTERM\n")


async def test_who_gets_in_is_read_anew_and_a_slip_in_it_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text('[ann]\ntoken = "a"\n\n[bob]\ntoken = "b"\nscopes = { red = "read" }\n')
    tokens = TokenFile(path)
    assert await tokens.verify("a", HERE) == Principal("ann")
    said = [tokens.scope_access(Principal(name), scope) for name in ("ann", "bob") for scope in ("red", "blue")]
    assert said == ["write", "write", "read", "none"]
    path.write_text('[bob]\ntoken = "c"\n')
    tokens.read()
    assert await tokens.verify("c", HERE) == Principal("bob")
    assert tokens.scope_access(Principal("bob"), "blue") == "write"
    for wrong in (
        "", "not toml", "ann = 1", "[ann]", '[ann]\ntoken = ""', '[ann]\ntoken = "t"\nteam = 1',
        '[ann]\ntoken = "t"\nscopes = { red = "all" }', '[ann]\ntoken = "t"\n[bob]\ntoken = "t"',
    ):  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(ConfigurationError, match=r"tokens\.toml"):
            tokens.read()
    assert await tokens.verify("c", HERE) == Principal("bob")
    with pytest.raises(AuthenticationError):
        await tokens.verify("a", HERE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hub.db", "--schema", "nowhere:SCHEMA", "--loopback"], "No module named 'nowhere'"),
        (["hub.db", "--schema", "tests.scenarios.cli.kit:TASKS", "--loopback"], "not a Schema"),
        (["hub.db", "--schema", "SCHEMA", "--loopback"], "a module and a name in it"),
        (["postgresql://ann:secret@host/db", "--schema", SCHEMA, "--loopback"], "leave the password out"),
        (["hub.db", "--schema", SCHEMA, "--tokens", "no.toml"], "no.toml"),
        (["hub.db", "--schema", SCHEMA, "--loopback", "--key", "k.pem"], "--key needs --certificate"),
        (["hub.db", "--schema", SCHEMA, "--loopback", "--certificate", "c.pem"], "certificate cannot be used"),
        (["hub.db", "--schema", SCHEMA, "--loopback", "--listen", "0.0.0.0:0"], "insecure"),
    ],
)
def test_what_cannot_work_is_said_in_a_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT)
    answer = atoma("hub", "serve", *arguments)
    assert answer.code == 1
    assert answer.err.startswith("atoma: ")
    assert words in answer.err


def test_a_path_is_a_file_and_an_address_is_postgresql(tmp_path: Path) -> None:
    assert isinstance(store_at(str(tmp_path / "hub.db")), SQLiteHubStore)
    assert repr(store_at("postgresql://ann@db.example/hub")) == "PostgreSQLHubStore('postgresql://db.example/hub')"
