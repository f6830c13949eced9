"""``atoma mcp``: answers a coding assistant's questions about a file, over the Model Context Protocol.

Each message is a line of JSON-RPC 2.0 on the standard streams. Nothing can be written: statements only read, as in ``atoma query``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import BinaryIO, Literal, cast

import msgspec

from atoma.cli import keys
from atoma.cli.files import ROWS_SHOWN, Answer, add_file, ask
from atoma.cli.reports import Exit
from atoma.cli.words import as_json
from atoma.contracts.extras import DISTRIBUTION
from atoma.errors import AtomaError, ConfigurationError
from atoma_stores.sqlite.encryption import FileKey
from atoma_stores.sqlite.files import survey_file, table_definitions

REVISION = "2025-06-18"
"""The protocol revision that is spoken; the part of it that is used has not changed since the first revision."""
LINE_MAX = 1 << 20
"""Maximum size of a message, in bytes."""
PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS = -32700, -32600, -32601, -32602
INSTRUCTIONS = (
    "One database file of an application built with Atoma, read-only. Call describe first: stores are tables, and their columns "
    "hold what the fields of a row are stored as. Then call query with one SELECT of SQLite's SQL."
)


class _Request(msgspec.Struct):
    """A request, or a notification, which has no id and is not answered."""

    method: str
    jsonrpc: Literal["2.0"]
    id: int | str | None = None
    params: dict[str, object] = {}


class _Call(msgspec.Struct):
    """The parameters of ``tools/call``."""

    name: str
    arguments: dict[str, object] = {}


class _Question(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of ``query``."""

    sql: str
    params: dict[str, str | int | float | bool | None] = {}
    limit: int = ROWS_SHOWN


class _Refused(Exception):
    """A message that cannot be answered, with the protocol's code."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


def add_command(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    command.description = (
        "Let a coding assistant query a file, over MCP on the standard streams, until they end. It can only read: what the "
        "file is, its stores, and rows by SQL. You decide which file the assistant sees."
    )
    add_file(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> Exit:
    key = keys.key_of(options)
    survey_file(options.file, key)  # a file that cannot be read is told at once, and not to the first question
    serve(options.file, sys.stdin.buffer, sys.stdout.buffer, key)
    return Exit.DONE


def serve(path: str, reading: BinaryIO, writing: BinaryIO, key: FileKey | None = None) -> None:
    """Answer every request in ``reading``, one per line, until it ends."""
    tools: dict[str, Callable[[dict[str, object]], object]] = {
        "describe": lambda arguments: _describe(path, key),
        "query": lambda arguments: _query(path, key, msgspec.convert(arguments, _Question)),
    }
    while line := reading.readline(LINE_MAX + 1):
        answer = _answer(line, tools)
        if answer is not None:
            writing.write(msgspec.json.encode({"jsonrpc": "2.0", **answer}) + b"\n")
            writing.flush()
        if len(line) > LINE_MAX:
            return  # what follows is the rest of it


def _answer(line: bytes, tools: Mapping[str, Callable[[dict[str, object]], object]]) -> dict[str, object] | None:
    request: _Request | None = None
    try:
        if len(line) > LINE_MAX:
            raise _Refused(INVALID_REQUEST, f"a message has at most {LINE_MAX:,} bytes")
        request = msgspec.json.decode(line, type=_Request)
        result = _result(request, tools)
    except msgspec.ValidationError as error:
        return _failed(request, INVALID_PARAMS if request else INVALID_REQUEST, str(error))
    except msgspec.DecodeError as error:
        return _failed(request, PARSE_ERROR, str(error))
    except _Refused as refused:
        return _failed(request, refused.code, str(refused))
    return None if request.id is None else {"id": request.id, "result": result}


def _failed(request: _Request | None, code: int, why: str) -> dict[str, object] | None:
    if request is not None and request.id is None:
        return None
    return {"id": request.id if request else None, "error": {"code": code, "message": why}}


def _result(request: _Request, tools: Mapping[str, Callable[[dict[str, object]], object]]) -> object:
    if request.method == "initialize":
        server = {"name": "atoma", "version": version(DISTRIBUTION)}
        return {
            "protocolVersion": REVISION, "capabilities": {"tools": {}}, "serverInfo": server, "instructions": INSTRUCTIONS,
        }  # fmt: skip
    if request.method == "ping" or request.id is None:
        return {}
    if request.method == "tools/list":
        return {"tools": TOOLS}
    if request.method != "tools/call":
        raise _Refused(NO_METHOD, f"there is no method {request.method!r}")
    call = msgspec.convert(request.params, _Call)
    if call.name not in tools:
        raise _Refused(INVALID_PARAMS, f"there is no tool {call.name!r}: {', '.join(tools)}")
    try:
        told = as_json(tools[call.name](call.arguments))
    except AtomaError as error:  # for the assistant, who may ask again in other words
        return {"content": [{"type": "text", "text": f"{error.code}: {error}"}], "isError": True}
    return {
        "content": [{"type": "text", "text": msgspec.json.encode(told).decode()}], "structuredContent": told, "isError": False,
    }  # fmt: skip


def _describe(path: str, key: FileKey | None) -> object:
    survey = cast("dict[str, object]", msgspec.to_builtins(survey_file(path, key)))
    stores = cast("dict[str, int]", survey["rows"])
    made = ("CREATE TABLE", "CREATE INDEX", "CREATE UNIQUE INDEX")  # and not what the file keeps of its own
    tables = [sql for sql in table_definitions(path, key) if sql.startswith(made) and "_atoma_" not in sql]
    return {**survey, "stores": list(stores), "tables": tables}


def _query(path: str, key: FileKey | None, question: _Question) -> Answer:
    if not 1 <= question.limit <= ROWS_SHOWN:
        raise ConfigurationError(f"limit must be from 1 to {ROWS_SHOWN}, not {question.limit}")
    return ask(path, question.sql, question.params, question.limit, key)


_SCALAR = ["string", "number", "boolean", "null"]
TOOLS: list[dict[str, object]] = [
    {
        "name": "describe",
        "description": "What the file is: its kind and size, its stores with their numbers of rows, and the SQL that made its tables.",
        "inputSchema": {"type": "object", "properties": {}},
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": "query",
        "description": "The rows of one SELECT over the stores of the file, in SQLite's SQL. Values go into params, by name, for :name.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "sql": {"type": "string", "description": "One statement that reads stores."},
                "params": {"type": "object", "additionalProperties": {"type": _SCALAR}},
                "limit": {"type": "integer", "minimum": 1, "maximum": ROWS_SHOWN, "default": ROWS_SHOWN},
            },
            "required": ["sql"],
        },
        "annotations": {"readOnlyHint": True},
    },
]
