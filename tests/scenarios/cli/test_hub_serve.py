"""``atoma hub serve`` as people start it: who gets in, what is said, and how it ends."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from atoma.cli.serving import store_at
from atoma.cli.tokens import TokenFile
from atoma.contracts.events import CallServed, ClientAhead
from atoma.errors import AuthenticationError, ConfigurationError
from atoma.hub import AllowLoopback, open_hub, token_digest
from atoma.inspector import Operations
from atoma.ports.service import Peer, Principal
from atoma.telemetry import HubMetrics
from atoma_stores.sqlite import SQLiteHubStore
from atoma_transports.http import HttpHandler
from atoma_transports.serving import open_server
from tests.scenarios.cli import kit
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


def asked(url: str, token: str = "") -> tuple[int, str]:
    """The status and the text of an answer over HTTP."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


async def test_whoever_runs_it_asks_for_its_health_and_its_figures(tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text(f'[ann]\ntoken = "{TOKEN}"\n')
    (tmp_path / "scrape").write_text(f"{token_digest('a-long-secret-of-prometheus')}\n")
    options = ("--tokens", str(tmp_path / "tokens.toml"), "--metrics-token-file", str(tmp_path / "scrape"))
    with serving(str(tmp_path / "hub.db"), *options) as (process, address):
        async with device(tmp_path / "a.db", f"ws://{address}/sync") as client:
            await client.store(TASKS).insert(task(1, title="a title that nobody else sees"))
            await settle(client)
            page = f"http://{address}"
            told = [await trio.to_thread.run_sync(asked, f"{page}/{path}") for path in ("healthz", "readyz")]
            assert told == [(200, "ok\n"), (200, "ready\n")]
            for token in ("", TOKEN, "wrong", token_digest("a-long-secret-of-prometheus")):
                assert (await trio.to_thread.run_sync(asked, f"{page}/metrics", token))[0] == 401
            code, text = await trio.to_thread.run_sync(asked, f"{page}/metrics", "a-long-secret-of-prometheus")
        await trio.to_thread.run_sync(end, process)
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert code == 200 and int(found['atoma_hub_calls_total{method="push",error=""}']) >= 1
    assert found['atoma_hub_sessions{transport="websocket"}'] == "1"
    pushes = found['atoma_hub_call_duration_seconds_count{method="push"}']
    assert found['atoma_hub_call_duration_seconds_bucket{method="push",le="+Inf"}'] == pushes
    assert not any(secret in text for secret in ('"ann"', '"red"', "tasks", "title", TOKEN[:8]))


async def test_figures_stay_few_and_readiness_is_the_databases() -> None:
    metrics = HubMetrics()
    for number in range(1_000):
        metrics.hear(CallServed("", f"method {number}", 0.005, f"CODE {number}", 0))
    metrics.hear(CallServed("", "method 0", 99.0, "DENIED", 0))
    metrics.hear(ClientAhead("ann", b"", 1, 2, 3))
    lines = metrics.text().splitlines()
    assert len(lines) < 33 * 17 and 'atoma_hub_calls_total{method="other",error="other"} 968' in lines
    assert 'atoma_hub_call_duration_seconds_bucket{method="method 0",le="0.0025"} 0' in lines
    assert 'atoma_hub_call_duration_seconds_bucket{method="method 0",le="0.005"} 1' in lines
    assert 'atoma_hub_call_duration_seconds_bucket{method="method 0",le="+Inf"} 2' in lines
    assert "atoma_hub_clients_ahead_total 1" in lines
    handler = HttpHandler()
    operations = Operations(handler)
    assert operations.listener is None, "nobody may read figures, so none are taken"
    async with (
        open_hub(kit.SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub,
        open_server(hub, "127.0.0.1:0", pages=handler) as address,
    ):
        assert (await trio.to_thread.run_sync(asked, f"http://{address}/readyz"))[0] == 503
        assert (await trio.to_thread.run_sync(asked, f"http://{address}/metrics"))[0] == 404
        operations.serve(hub)
        assert await trio.to_thread.run_sync(asked, f"http://{address}/readyz") == (200, "ready\n")
    with pytest.raises(ConfigurationError, match="can be guessed"):
        Operations(handler, "short")


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
        (["postgresql://ann:secret@host/db", "--schema", SCHEMA, "--loopback"], "leave out the password"),
        (["postgresql://ann@host/db?password=secret", "--schema", SCHEMA, "--loopback"], "leave out the password"),
        (["hub.db", "--schema", SCHEMA, "--tokens", "no.toml"], "no.toml"),
        (["hub.db", "--schema", ".kit:SCHEMA", "--loopback"], "--schema .kit:SCHEMA: TypeError: "),
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
    assert "--listen" in arguments or list(tmp_path.iterdir()) == [], "a file was made first"


@pytest.mark.parametrize("text", ["def f(:", "1 / 0"])
def test_a_module_that_cannot_be_imported_is_said_in_a_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong_models.py").write_text(f"# mine\n{text}\n")
    answer = atoma("hub", "serve", "hub.db", "--schema", "wrong_models:SCHEMA", "--loopback")
    assert answer.code == 1 and len(answer.err.splitlines()) == 1, answer
    assert "wrong_models.py:2: ZeroDivisionError: " in answer.err or "(wrong_models.py, line 2)" in answer.err, answer


def test_a_path_is_a_file_and_an_address_is_postgresql(tmp_path: Path) -> None:
    assert isinstance(store_at(str(tmp_path / "hub.db")), SQLiteHubStore)
    assert repr(store_at("postgresql://ann@db.example/hub")) == "PostgreSQLHubStore('postgresql://db.example/hub')"
