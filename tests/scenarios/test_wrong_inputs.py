"""What people pass by mistake at the public doors: a typed error that says what is wrong, never a guess in silence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio

from atoma import (
    AllowLoopback,
    Client,
    Index,
    Plugin,
    Schema,
    StaticTokenVerifier,
    Store,
    StoreSpec,
    Sync,
    col,
    open_client,
    open_hub,
    select,
)
from atoma.cli.reports import Exit
from atoma.contracts.values import ErrorInfo
from atoma.errors import (
    AtomaError,
    ClosedError,
    ConfigurationError,
    PluginError,
    QueryError,
    SchemaError,
    UnknownPolicy,
    ValidationError,
)
from atoma.kernel import node, retry, sequence, timeout
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.calls import ChannelLimits
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.certificates import make_certificate, server_context
from tests.scenarios.cli.kit import atoma


@dataclass(frozen=True)
class Note:
    id: str
    text: str


@dataclass(frozen=True)
class Odd:
    id: str
    size: complex


@dataclass(frozen=True)
class Numbered:
    id: int


@dataclass(frozen=True)
class Keyed:
    id: UUID


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)
ENGINE = SQLiteEngine(":memory:")
wrong: Any = lambda value: value  # noqa: E731

MAKING: list[tuple[type[AtomaError], str, Callable[[], object]]] = [
    (SchemaError, "store name 5", lambda: StoreSpec(wrong(5), Note)),
    (SchemaError, "a class, not an object", lambda: StoreSpec("notes", wrong(Note("a", "b")))),
    (SchemaError, "durability must be normal or full", lambda: StoreSpec("notes", Note, durability=wrong("FULL"))),
    (SchemaError, "scope is the name", lambda: StoreSpec("notes", Note, scope=wrong(5))),
    (SchemaError, r"list of Index\(…\)", lambda: StoreSpec("notes", Note, indexes=wrong(["text"]))),
    (SchemaError, r"list of Index\(…\)", lambda: StoreSpec("notes", Note, indexes=wrong(Index("text")))),
    (SchemaError, "each by its name", lambda: Index(wrong(5))),
    (SchemaError, r"StoreSpec\(…\)", lambda: Schema(wrong(Note))),
    (SchemaError, r"StoreSpec\(…\)", lambda: Schema(wrong([NOTES]))),
    (SchemaError, "version must be", lambda: Schema(NOTES, version=wrong("1"))),
    (SchemaError, "no column can hold complex", lambda: StoreSpec("odd", Odd)),
    (SchemaError, "would count to the same number", lambda: StoreSpec("numbered", Numbered)),
    (SchemaError, "the text of a UUID", lambda: StoreSpec("keyed", Keyed)),
    (ConfigurationError, "are lists", lambda: Sync(wrong(NOTES))),
    (ConfigurationError, "takes a mapping", lambda: StaticTokenVerifier(wrong(["secret"]))),
    (ConfigurationError, r"calls=…\) must be a number of at least 1", lambda: ChannelLimits(calls=-1)),
    (ConfigurationError, r"ping_s=…\) must be a number", lambda: ChannelLimits(ping_s=wrong("15"))),
    (QueryError, r"col\(…\)", lambda: select(NOTES).where(wrong("text = 'a'"))),
    (QueryError, r"col\(…\)", lambda: select(NOTES).where(wrong(True))),
    (QueryError, r"col\(…\)", lambda: (col("text") == "a") & wrong(True)),
    (QueryError, r"col\(…\)", lambda: (col("text") == "a") | wrong(None)),
    (QueryError, "order_by", lambda: select(NOTES).order_by(wrong(5))),
    (QueryError, "limit", lambda: select(NOTES).limit(wrong("5"))),
    (QueryError, "limit", lambda: select(NOTES).limit(True)),
    (QueryError, "offset", lambda: select(NOTES).offset(wrong(None))),
    (QueryError, "after", lambda: select(NOTES).after(wrong(5))),
    (QueryError, "select", lambda: select(wrong("notes"))),
    (QueryError, "select", lambda: select(wrong(Note))),
    (QueryError, "col", lambda: col(wrong(5))),
    (QueryError, "in_", lambda: col("text").in_("abc")),
    (QueryError, "in_", lambda: col("text").in_(wrong(5))),
    (QueryError, "like", lambda: col("text").like(wrong(5))),
    (ConfigurationError, "WebSocket address", lambda: WebSocketTransport(wrong(5))),
    (ConfigurationError, "WebSocket address", lambda: WebSocketTransport("ws://[::1/sync")),
    (ConfigurationError, "gRPC address", lambda: GrpcTransport(wrong(5))),
    (ConfigurationError, "HTTP address", lambda: HttpTransport(wrong(5))),
    (ConfigurationError, "a token must be text", lambda: WebSocketTransport("ws://127.0.0.1/", token=wrong(None))),
    (ConfigurationError, "a token must be text", lambda: GrpcTransport("127.0.0.1:1", token=wrong(b"secret"))),
    (ConfigurationError, "a token must be text", lambda: HttpTransport("http://127.0.0.1", token=wrong(5))),
    (ConfigurationError, "a token must be text", lambda: MemoryTransport(MemoryNetwork(), token=wrong(None))),
    (ConfigurationError, "needs a transport", lambda: Remote(wrong("ws://127.0.0.1:8765/sync"))),
    (ConfigurationError, "needs a transport", lambda: Remote(wrong(WebSocketTransport))),
    (ConfigurationError, "needs an engine", lambda: LocalExecution(wrong("app.db"))),
    (ConfigurationError, "needs an engine", lambda: LocalExecution(wrong(SQLiteEngine))),
    (ConfigurationError, "path of a file", lambda: SQLiteEngine("")),
    (ConfigurationError, "path of a file", lambda: SQLiteHubStore("")),
    (ConfigurationError, "durability", lambda: SQLiteEngine("a.db", durability=wrong("FULL"))),
    (ConfigurationError, r"node\('local-query'\)", lambda: sequence(wrong("local-query"))),
    (ConfigurationError, r"node\('local-query'\)", lambda: timeout(wrong("local-query"), 2)),
    (ConfigurationError, r"Backoff\(seconds\)", lambda: retry(node("a"), 3, wrong(0.1))),
]


@pytest.mark.parametrize(("error", "told", "make"), MAKING, ids=range(len(MAKING)))
def test_a_value_that_makes_no_sense_is_refused_where_it_is_made(
    error: type[AtomaError], told: str, make: Callable[[], object]
) -> None:
    with pytest.raises(error, match=told):
        make()


ROW: Any = Note("a", "b")
EVERY: Any = select(NOTES)


CALLS: list[tuple[type[AtomaError], str, Callable[[Client, Store[Note]], Awaitable[object]]]] = [
    (QueryError, r"select\(STORE\)", lambda _, notes: notes.query(wrong("select *"))),
    (QueryError, "is text, not 5", lambda _, notes: notes.get(wrong(5))),
    (UnknownPolicy, r"add Sync\(stores=\[…\]\) to plugins", lambda _, notes: notes.insert(ROW, policy="sync-queue")),
    (
        ValidationError,
        r"not the row: Note\(…\).id; a whole row is written by upsert",
        lambda _, notes: notes.update(ROW),
    ),
    (ValidationError, r"not the row: Note\(…\).id", lambda _, notes: notes.update(ROW, text="c")),
    (ValidationError, r"not the row: Note\(…\).id", lambda _, notes: notes.delete(ROW)),
    (ValidationError, r"client.delete_where\(query\)", lambda _, notes: notes.delete_many(EVERY)),
    (ValidationError, r"client.delete_where\(query\)", lambda _, notes: notes.delete(EVERY)),
    (ValidationError, r"client.update_where\(query, …\)", lambda _, notes: notes.update(EVERY, text="c")),
    (QueryError, r"order_by\('-text'\)", lambda _, notes: notes.query(select(NOTES).order_by("text desc"))),
    (QueryError, r"order_by\('text'\)", lambda _, notes: notes.query(select(NOTES).order_by("text ASC"))),
    (QueryError, "is text, not None", lambda _, notes: notes.get_many(["a", wrong(None)])),
    (QueryError, "is text, not 5", lambda _, notes: notes.exists(wrong(5))),
    (ValidationError, "takes a list of items", lambda _, notes: notes.insert_many(wrong(Note("a", "b")))),
    (ValidationError, "confirm must be one of", lambda _, notes: notes.insert(Note("a", "b"), confirm=wrong("Strict"))),
    (ValidationError, "durability must be", lambda _, notes: notes.insert(Note("a", "b"), durability=wrong("FULL"))),
    (ValidationError, "apply must be", lambda _, notes: notes.upsert(Note("a", "b"), apply=wrong("overwrite"))),
    (ValidationError, "conflict must be", lambda _, notes: notes.upsert(Note("a", "b"), conflict=wrong("abort"))),
    (ValidationError, "merge must be", lambda _, notes: notes.get_all(merge=wrong("all"))),
    (ValidationError, "confirm must be", lambda _, notes: notes.delete_many(["a"], confirm=wrong("never"))),
]


@pytest.mark.parametrize(("error", "told", "call"), CALLS, ids=range(len(CALLS)))
async def test_a_misspelt_choice_is_refused_and_nothing_is_written(
    error: type[AtomaError], told: str, call: Callable[[Client, Store[Note]], Awaitable[object]]
) -> None:
    async with open_client(SCHEMA, plugins=[LocalExecution(ENGINE)]) as client:
        with pytest.raises(error, match=told):
            await call(client, client.store(NOTES))
        assert await client.store(NOTES).count() == 0


async def test_a_drawing_has_a_known_format() -> None:
    async with open_client(SCHEMA, plugins=[LocalExecution(ENGINE)]) as client:
        with pytest.raises(ConfigurationError, match="text, mermaid, svg"):
            client.explain("direct-local", format=wrong("png"))


@pytest.mark.parametrize(
    ("schema", "plugins", "error", "told"),
    [
        (NOTES, [LocalExecution(ENGINE)], ConfigurationError, "takes a schema first"),
        (SCHEMA, LocalExecution(ENGINE), PluginError, r"plugins=\[LocalExecution"),
        (SCHEMA, [LocalExecution], PluginError, "is a class"),
        (SCHEMA, [MemoryTransport(MemoryNetwork())], PluginError, "is not a plugin"),
    ],
)
async def test_a_client_of_wrong_parts_does_not_open(
    schema: object, plugins: object, error: type[AtomaError], told: str
) -> None:
    with pytest.raises(error, match=told):
        async with open_client(wrong(schema), plugins=wrong(plugins)):
            pass


@pytest.mark.parametrize(
    ("parts", "options", "told"),
    [
        ((NOTES, SQLiteHubStore(":memory:")), {}, "takes a schema first"),
        ((SCHEMA, "hub.db"), {}, "SQLiteHubStore"),
        ((SCHEMA, ENGINE), {}, "SQLiteHubStore"),
        ((SCHEMA, SQLiteHubStore(":memory:")), {"verifier": AllowLoopback}, "the verifier must be an object"),
        ((SCHEMA, SQLiteHubStore(":memory:")), {"verifier": {"secret": "ada"}}, "the verifier must be an object"),
        ((SCHEMA, SQLiteHubStore(":memory:")), {"rules": 5}, "rules must be an object"),
    ],
)
async def test_a_hub_of_wrong_parts_does_not_open(parts: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        async with open_hub(*parts, **{"verifier": AllowLoopback(), **options}):
            pass


async def test_a_transaction_reads_every_row_and_takes_ids() -> None:
    async with open_client(SCHEMA, plugins=[LocalExecution(ENGINE)]) as client:
        await client.store(NOTES).insert(ROW)
        async with client.transaction() as tx:
            assert await tx.store(NOTES).query() == (ROW,)
            with pytest.raises(ValidationError, match="not the row"):
                await tx.store(NOTES).update(ROW, text="c")
    with pytest.raises(ClosedError, match="the client is closed"):
        await client.store(NOTES).query()


def test_keys_of_json_are_text() -> None:
    with pytest.raises(SchemaError, match=r"the keys of JSON are text; declare dict\[str, …\]"):
        StoreSpec("odd", make_dataclass("Row", [("id", str), ("names", dict[int, str])], frozen=True))


def test_tokens_that_can_be_guessed_are_told(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    StaticTokenVerifier({"abcde": "ann", "a token with many letters": "bob"})
    assert "the tokens of ann have fewer than 16 letters" in caplog.text and "abcde" not in caplog.text
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[ann]\ntoken = "abcde"\n[bob]\ntoken = "a token with many letters"\n')
    answer = atoma("doctor", "--tokens", tokens)
    assert answer.code == Exit.FOUND and "! the tokens of ann have fewer" in answer.out and "abcde" not in answer.out


async def test_a_wrong_path_and_a_wrong_scheme_are_told(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    verifier = StaticTokenVerifier({"a token with many letters": "ann"})
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=verifier) as hub:
        async with (
            open_server(hub, "127.0.0.1:0") as plain,
            open_server(hub, "127.0.0.1:0", ssl_context=server_context(certificate)) as secret,
        ):
            wrong_path = await refusal_of(WebSocketTransport(f"ws://{plain}/wrong", token="a token with many letters"))
            assert not wrong_path.retryable
            assert "there is no hub at this path (HTTP status 403); a hub's path is /sync" in wrong_path.message
            no_tls = await refusal_of(WebSocketTransport(f"ws://{secret}/sync", token="a token with many letters"))
            assert no_tls.retryable and "if the hub speaks TLS, the address begins with wss://" in no_tls.message


async def refusal_of(transport: WebSocketTransport) -> ErrorInfo:
    """What the status of a client says that cannot connect by ``transport``."""
    plugins: list[Plugin] = [LocalExecution(ENGINE), Remote(transport), Sync([NOTES])]
    async with open_client(SCHEMA, plugins=plugins) as client, client.sync.watch() as changes:
        with trio.fail_after(60):
            async for status in changes:
                if status.error is not None:
                    return status.error
    raise AssertionError("the client was closed")


async def test_host_names_are_a_list() -> None:
    async with open_hub(
        SCHEMA, SQLiteHubStore(":memory:"), verifier=StaticTokenVerifier({"a long secret": "ada"})
    ) as hub:
        with pytest.raises(ConfigurationError, match="list of host names"):
            async with open_server(hub, "127.0.0.1:0", names="hub.example"):
                pass
