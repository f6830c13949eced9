"""What a code means is said once: every code has its row, nobody keeps a list of codes, and the documentation agrees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from atoma.codes import (
    BY_GRPC,
    BY_HTTP,
    BY_WEBSOCKET,
    CODES,
    HELP,
    OF_HTTP,
    OTHER,
    Category,
    Code,
    Help,
    VerdictKind,
    row,
)
from atoma.errors import AtomaError, ExecutionError, RemoteError, Resync, StoreBusy, is_retryable, what_helps

Sources = dict[Path, ast.Module]

TABLE = Path("atoma/codes.py")
TESTING = Path("atoma/testing")  # states what it expects
PAGE = "docs/reference/codes.md"
BEGINNING, END = "<!-- the table -->\n\n", "\n<!-- the end of the table -->\n"
SAYERS = {"refusal": 0, "Refusal": 0, "ErrorInfo": 0, "resync": 0, "_transient": 0, "fail": 1}
"""Functions that take a code, and where."""


def told(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every code that is written out where a code is wanted, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "code":
                    yield from constants(line.value)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in SAYERS and len(node.args) > SAYERS[name]:
                yield from constants(node.args[SAYERS[name]])
            for keyword in node.keywords:
                if keyword.arg in ("remote_code", "reason") and name in ("RemoteError", "WriteRejected"):
                    yield from constants(keyword.value)


def constants(node: ast.expr) -> Iterator[tuple[int, str]]:
    """The texts that an expression may be."""
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.lineno, part.value


def lists(tree: ast.Module) -> list[int]:
    """Lines with a collection of codes, which would be a table beside the table."""
    found: list[int] = []
    types = {
        id(node.slice) for node in ast.walk(tree) if isinstance(node, ast.Subscript)
    }  # a closed type is not a table
    for node in ast.walk(tree):
        if id(node) in types:
            continue
        words: list[object] = []
        match node:
            case ast.Set() | ast.List() | ast.Tuple():
                words = [part.value for part in node.elts if isinstance(part, ast.Constant)]
            case ast.Dict():
                words = [part.value for part in (*node.keys, *node.values) if isinstance(part, ast.Constant)]
            case ast.Constant(value=str(text)):
                words = [word for word in text.split() if word.isupper()] if text.isupper() else []
            case _:
                pass
        if sum(word in CODES for word in words) > 1:
            found.append(getattr(node, "lineno", 0))
    return found


def error_classes(kind: type[AtomaError] = AtomaError) -> Iterator[type[AtomaError]]:
    """The error classes of the project that are loaded."""
    if kind.__module__.split(".")[0] in ("atoma", "atoma_stores", "atoma_transports"):
        yield kind
    for below in kind.__subclasses__():
        yield from error_classes(below)


def as_page() -> str:
    """The table as the documentation shows it."""
    lines = [
        "| code | says | about | what helps | a write | HTTP | gRPC | WebSocket |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, code in CODES.items():
        closes = code.websocket or "–"
        lines.append(
            f"| `{name}` | {code.means} | {code.category} | {code.help} | {code.verdict} | {code.http} | {code.grpc} | {closes} |"
        )
    lines += ["", "| what helps | that is |", "|---|---|", *(f"| {word} | {text} |" for word, text in HELP.items())]
    return "\n".join([*lines, ""])


def test_every_code_that_is_told_has_its_row(product: Sources) -> None:
    known = [(path, *found) for path, tree in product.items() for found in told(tree)]
    assert len(known) > 150  # the search finds what is there
    assert [found for found in known if found[2] not in CODES] == []


def test_every_error_class_has_its_row_and_reads_it() -> None:
    kinds = list(error_classes())
    assert len(kinds) > 40
    assert [kind.__name__ for kind in kinds if kind.code not in CODES] == []
    assert [kind.__name__ for kind in kinds if kind.retryable is not CODES[kind.code].retryable] == []


def test_nobody_else_keeps_a_list_of_codes(product: Sources) -> None:
    found = {str(path): lists(tree) for path, tree in product.items() if path != TABLE and TESTING not in path.parents}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_nobody_else_says_whether_a_code_is_retryable(product: Sources) -> None:
    found = [
        (str(path), node.lineno)
        for path, tree in product.items()
        if TESTING not in path.parents
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("retryable", "remote_retryable") and isinstance(keyword.value, ast.Constant)
    ]
    assert found == []


def test_the_table_uses_the_words_it_declares() -> None:
    assert tuple(HELP) == get_args(Help)
    assert {code.help for code in CODES.values()} == set(get_args(Help))
    assert {code.category for code in CODES.values()} == set(get_args(Category))
    assert {code.verdict for code in CODES.values()} == set(get_args(VerdictKind))
    assert [name for name, code in CODES.items() if code.help == "resnapshot" and code.retryable] == []


def test_what_other_protocols_say_comes_back_as_a_code() -> None:
    for spelled in (BY_HTTP, BY_GRPC, BY_WEBSOCKET, OF_HTTP):
        assert set(spelled.values()) <= set(CODES)
    assert {code.grpc for code in CODES.values()} <= set(BY_GRPC)
    assert {code.websocket for code in CODES.values()} - {0} <= set(BY_WEBSOCKET)
    for number, name in BY_WEBSOCKET.items():
        assert CODES[name].websocket in (number, 4400)


def test_the_reference_shows_the_table(root: Path) -> None:
    shown = (root / PAGE).read_text(encoding="utf-8").partition(BEGINNING)[2].partition(END)[0]
    assert shown == as_page(), f"put this between the marks of {PAGE}:\n{as_page()}"


def test_an_error_says_what_helps() -> None:
    assert what_helps(StoreBusy("held")) == "retry"
    assert (what_helps(Resync("CURSOR_TOO_OLD")), is_retryable(Resync("CURSOR_TOO_OLD"))) == ("resnapshot", False)
    assert what_helps(RemoteError("no", remote_code="AUTH_EXPIRED")) == "login"
    future = RemoteError("?", remote_code="OF_THE_FUTURE")
    assert (row("OF_THE_FUTURE"), future.remote_retryable, what_helps(future)) == (OTHER, False, OTHER.help)
    assert what_helps(RemoteError("?", remote_code="OF_THE_FUTURE", remote_retryable=True)) == "retry"
    assert RemoteError("later", remote_code="RATE_LIMITED").remote_retryable


@pytest.mark.parametrize(
    "planted",
    [
        'class Odd(AtomaError):\n    code = "ODD"',
        'raise RemoteError("no", remote_code="ODD")',
        'raise RemoteError("no", remote_code="TOO_LARGE" if size else "ODD")',
        'refusal("ODD", "no")',
        'receipt.fail("dead", "ODD", "no")',
    ],
)
def test_a_planted_code_without_a_row_is_seen(planted: str) -> None:
    assert "ODD" in [code for _, code in told(ast.parse(planted))]


@pytest.mark.parametrize(
    "planted",
    [
        'STALL = frozenset({"CORRUPT", "DISK_FULL"})',
        'if code in ("UNAUTHENTICATED", "AUTH_EXPIRED"): stop()',
        'REFUSALS = "CONFLICT DENIED INVALID".split()',
        'CLOSES = {1011: "INTERNAL", 1012: "UNAVAILABLE"}',
    ],
)
def test_a_planted_list_of_codes_is_seen(planted: str) -> None:
    assert lists(ast.parse(planted)) == [1]


def test_an_error_class_of_somebody_elses_may_have_a_code_of_its_own() -> None:
    class Odd(ExecutionError):
        """An error of an application."""

        code = "ODD"

    assert (Odd.retryable, what_helps(Odd("?"))) == (False, OTHER.help)
    assert Code("?", "local", "retry", "undone").retryable
