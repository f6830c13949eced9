"""What all commands have in common: JSON, help, exit codes, completion, Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import trio

from atoma.cli.completion import _commands
from atoma.cli.keys import secret_of
from atoma.cli.main import main, parser
from atoma.cli.reports import Exit
from tests.scenarios.cli.kit import atoma, write
from tests.scenarios.cli.services import PATIENCE_S

pytestmark = pytest.mark.xdist_group("machine")
PAGE = Path("docs/reference/cli.md")
ATOMA = [sys.executable, "-c", "from atoma.cli import main; raise SystemExit(main())"]
UNTIL_STOPPED = {"atoma demo", "atoma hub serve", "atoma inspect", "atoma completion", "atoma mcp"}
OF_EXTRAS = (
    "google", "grpclib", "h11", "h2", "hpack", "httpcore2", "hyperframe", "multidict", "opentelemetry", "psycopg", "pyarrow", "rich",
    "textual", "trio_websocket", "wsproto",
)  # fmt: skip
BARE = f"import sys; sys.modules.update(dict.fromkeys({OF_EXTRAS})); {ATOMA[-1]}"
"""The program where no extra is installed."""
PIPE_BYTES = 1 << 20
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def leaves(found: argparse.ArgumentParser, path: str = "atoma") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [action for action in found._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, child in action.choices.items():
            yield from leaves(child, f"{path} {name}")
    if not below:
        yield path, found


def test_every_command_answers_in_json_and_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for path, command in leaves(parser()):
        assert ("--json" in command.format_help()) == (path not in UNTIL_STOPPED), path
        assert all(action.help for action in command._actions), path
        assert f"`{path}" in page or f"; `{path.split()[-1]}`" in page, path


@pytest.mark.parametrize("given", [(), ("hub",), ("hub", "tokens"), ("outbox",)], ids=" ".join)
def test_what_has_commands_lists_them_when_none_is_given(
    given: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    path = " ".join(("atoma", *given))
    named = {name.split()[len(path.split())] for name, _ in leaves(parser()) if name.startswith(f"{path} ")}
    assert len(named) > 1
    assert all(re.search(rf"\n    {name}\s", err) for name in named), err


def test_every_command_that_opens_a_devices_file_takes_its_key() -> None:
    for path, command in leaves(parser()):
        opens = (
            path.split()[1] != "hub" and any(action.dest == "file" for action in command._actions)
        ) or path == "atoma migrate"
        assert ("--key-file" in command.format_help()) == opens, path
        assert "--key " not in command.format_help() or path == "atoma hub serve", path


def test_a_key_is_asked_for_once_also_where_it_is_told_once(tmp_path: Path) -> None:
    told, digits = tmp_path / "told", "0f" * 32
    os.mkfifo(told)
    options = parser().parse_args(["check", "app.db", "--key-file", str(told)])
    teller = Thread(target=told.write_text, args=(f"{digits}\n",))
    teller.start()
    assert secret_of(options) == bytes.fromhex(digits)
    teller.join()
    told.unlink()
    assert secret_of(options) == bytes.fromhex(digits)


@pytest.mark.parametrize(
    ("option", "command"),
    [
        ("--compact-days", ("hub", "serve", "hub.db", "--schema", "a:B", "--loopback")),
        ("--keep-days", ("hub", "compact", "hub.db")),
        ("--timeout", ("sync", "repair", "app.db", "--url", "ws://h/sync")),
        ("--interval", ("top", "app.db")),
        ("--looks", ("top", "app.db")),
        ("--limit", ("query", "app.db", "SELECT 1")),
        ("--keep", ("hub", "compact", "hub.db")),
        ("--rows", ("demo", "--once")),
    ],
)
def test_a_number_that_makes_no_sense_is_wrong_usage(option: str, command: tuple[str, ...]) -> None:
    for wrong in ("nan", "-1", "inf", "1e30", "9" * 30, "many", ""):
        answer = atoma(*command, f"{option}={wrong}")
        assert (answer.code, answer.out) == (Exit.USAGE, ""), (wrong, answer)
        assert f"argument {option}: " in answer.err and f", not {wrong!r}" in answer.err


def test_the_exit_codes_are_on_the_page() -> None:
    table = re.findall(r"^\| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(code) for code in table] == [code.value for code in Exit]
    assert all(f"  {code.value:<4} " in parser().format_help() for code in Exit)


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_program_without_extras_starts_and_says_which_one_a_page_needs() -> None:
    helped, refused = bare("--help"), bare("inspect", "a.db")
    assert (helped.returncode, helped.stderr) == (Exit.DONE, "")
    assert refused.returncode == Exit.FAILED
    assert refused.stderr.startswith("atoma: ") and "pip install 'atoma-runtime[http]'" in refused.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(*arguments: object) -> str:
    with contextlib.redirect_stdout(Terminal()) as out:
        assert main([str(each) for each in arguments]) == Exit.DONE
    return out.getvalue()


async def test_a_terminal_gets_a_table_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.db"
    await write(file, "", [1])
    asked = ("query", file, "SELECT id, title, due, '[bold]' AS markup FROM tasks")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    wide = on_a_terminal(*asked)
    assert "\x1b[" in wide and "─" in wide and "[bold]" in wide and "row 1" not in wide
    monkeypatch.setenv("COLUMNS", "30")
    narrow = on_a_terminal(*asked)
    assert "row 1" in narrow
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", on_a_terminal(*asked))
    assert "─" not in atoma(*asked).out and "\x1b" not in atoma(*asked).out


def completed(script: str, *words: str) -> list[str]:
    line = " ".join(f"'{word}'" for word in words)
    ask = f'{script}\nCOMP_WORDS=({line})\nCOMP_CWORD={len(words) - 1}\n_atoma\nprintf "%s\\n" "${{COMPREPLY[@]}}"'
    return subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split()


def test_a_shell_completes_commands_options_and_words() -> None:
    script = atoma("completion", "bash").out
    assert completed(script, "atoma", "ou") == ["outbox"]
    assert completed(script, "atoma", "hub", "r") == ["restore"]
    assert completed(script, "atoma", "hub", "tokens", "") == ["--help", "add", "list", "revoke"]
    assert completed(script, "atoma", "query", "app.db", "--l") == ["--limit"]
    assert completed(script, "atoma", "hub", "restore", "a", "b", "--devices", "f") == ["forget"]
    for shell in ("zsh", "fish"):
        said = atoma("completion", shell).out
        assert all(name in said for each in _commands(parser(), "atoma") for name in each.path.split()[1:])
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=said, text=True, check=True)


def test_ctrl_c_ends_a_long_statement_and_a_page(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    trio.run(write, file, "", [1])
    with (
        subprocess.Popen(
            [*ATOMA, "query", str(file), "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as query,
        subprocess.Popen([*ATOMA, "inspect", str(file)], stdout=subprocess.PIPE, text=True) as page,
    ):
        assert page.stdout is not None and query.stderr is not None and query.stdin is not None
        with query.stdin as statement:  # more than a pipe takes, so it has started once this is through
            statement.write(ENDLESS + " " * PIPE_BYTES)
        address = re.search(r"http://\S+", page.stdout.readline())
        assert address is not None
        with urllib.request.urlopen(address[0]) as answer:
            assert "<title>Atoma inspector</title>" in answer.read().decode()
        events = urllib.request.urlopen(address[0].replace("/inspector", "/api/inspector/file/events"))
        state = next(line for line in map(bytes.decode, events) if line.startswith("data:"))
        assert '"outbox":[{' in state and '"name":"tasks","rows":1' in state
        events.close()
        query.send_signal(signal.SIGINT)
        page.send_signal(signal.SIGINT)
        try:
            assert (query.wait(PATIENCE_S), page.wait(PATIENCE_S)) == (Exit.INTERRUPTED, Exit.INTERRUPTED)
        finally:
            query.kill()
            page.kill()
        assert query.stderr.read() == ""
