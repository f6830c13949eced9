"""``atoma hub serve``: runs a hub on a file or on PostgreSQL, at a port, until it is stopped."""

from __future__ import annotations

import argparse
import logging
import signal
import ssl
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import trio

from atoma.cli import schemas
from atoma.cli.numbers import days
from atoma.cli.reports import Exit
from atoma.cli.sync import read_token
from atoma.cli.tokens import TokenFile
from atoma.cli.words import count
from atoma.errors import AtomaError, ConfigurationError
from atoma.hub import AllowLoopback, Hub, Rules, open_garbage_collection, open_hub
from atoma.ports.hub import HubStore
from atoma.ports.service import TokenVerifier
from atoma.ports.tasks import open_tasks
from atoma.schema import Schema
from atoma_stores.sqlite import SQLiteHubStore, hub_files
from atoma_transports.serving import open_server

if TYPE_CHECKING:
    from atoma.inspector import Operations
    from atoma_stores.postgres import PostgreSQLHubStore
    from atoma_transports.http import HttpHandler

POSTGRESQL = ("postgresql://", "postgres://")
LISTEN = "127.0.0.1:8765"
DAY_S = 86_400.0
VERIFY_AGAIN_S = 60.0
_log = logging.getLogger("atoma.cli")


def add_command(serve: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    serve.description = (
        "Run a hub until SIGTERM or Ctrl-C. It then finishes the calls in flight, and devices connect again later or elsewhere. "
        "On PostgreSQL, any number of these processes may run side by side."
    )
    serve.add_argument(
        "where", metavar="WHERE", help="the hub's file, or postgresql://user@host/database (its password in PGPASSWORD)"
    )
    schemas.add_option(serve)
    serve.add_argument(
        "--listen",
        default=LISTEN,
        metavar="HOST:PORT",
        help="where to listen (default %(default)s; port 0 takes any free port)",
    )
    who = serve.add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--tokens", type=Path, metavar="FILE", help="TOML file that says who is admitted; on SIGHUP it is read again"
    )
    who.add_argument(
        "--loopback", action="store_true", help="admit everybody on this machine without a token, and nobody else"
    )
    serve.add_argument("--certificate", type=Path, metavar="FILE", help="use TLS with this certificate chain (PEM)")
    serve.add_argument(
        "--key", type=Path, metavar="FILE", help="the certificate's private key, if it is not in the same file"
    )
    serve.add_argument(
        "--insecure", action="store_true", help="allow plain text at an address that other machines can reach"
    )
    serve.add_argument(
        "--name", action="append", default=[], help="a host name by which browsers reach the hub; may be repeated"
    )
    serve.add_argument(
        "--proxy", action="append", default=[], help="address or network of a trusted proxy; may be repeated"
    )
    serve.add_argument(
        "--metrics-token-file", type=Path, metavar="PATH", help="serve /metrics to callers with the token in this file"
    )
    serve.add_argument(
        "--compact-days",
        type=days,
        default=1.0,
        metavar="DAYS",
        help="remove old history every so many days; 0: never (default %(default)g)",
    )
    serve.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> Exit:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("trio-websocket").setLevel(logging.WARNING)
    schema, store = load_served(options.schema), store_at(options.where)
    certificate = _certificate(options.certificate, options.key)
    trio.run(_run, options, schema, store, certificate, restrict_keyboard_interrupt_to_checkpoints=True)
    return Exit.DONE


async def _run(
    options: argparse.Namespace, schema: Schema, store: HubStore, certificate: ssl.SSLContext | None
) -> None:
    tokens = None if options.tokens is None else TokenFile(options.tokens)
    verifier: TokenVerifier = AllowLoopback() if tokens is None else tokens
    rules: Rules | None = tokens
    again_s = None if tokens is None else VERIFY_AGAIN_S
    pages, operations = _pages(options.metrics_token_file)
    hear = None if operations is None else operations.listener
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with (
            open_hub(schema, store, verifier=verifier, rules=rules, verify_again_s=again_s, listener=hear) as hub,
            open_server(
                hub,
                options.listen,
                pages=pages,
                ssl_context=certificate,
                insecure=options.insecure,
                names=options.name,
                trusted_proxies=options.proxy,
            ) as address,
            open_garbage_collection(),
            open_tasks() as nursery,
        ):
            if operations is not None:
                operations.serve(hub)
            if options.compact_days > 0:
                nursery.start_soon(_compact, hub, options.compact_days * DAY_S)
            print(f"serving {store} on {address}", flush=True)
            async for number in signals:
                if number != signal.SIGHUP:
                    print(f"stopping: {signal.Signals(number).name}", flush=True)
                    nursery.cancel_scope.cancel()
                    break
                _reload(tokens)


def _pages(token_file: Path | None) -> tuple[HttpHandler | None, Operations | None]:
    """Return the pages for the operator, if HTTP is installed.

    Raises:
        ConfigurationError: Metrics are requested but HTTP is not installed, or their token cannot be used.
    """
    try:
        from atoma.inspector import Operations
        from atoma_transports.http import HttpHandler
    except ModuleNotFoundError as missing:
        if token_file is not None:
            raise ConfigurationError(f"/metrics cannot be served: {missing.msg}") from None
        return None, None
    handler = HttpHandler()
    return handler, Operations(handler, None if token_file is None else read_token(token_file))


def _reload(tokens: TokenFile | None) -> None:
    if tokens is not None:
        try:
            tokens.read()
        except ConfigurationError as error:
            _log.warning("the previous tokens stay in force: %s", error)
        else:
            _log.info(
                "the tokens were read again; sessions that are no longer admitted end within %.0f s", 2 * VERIFY_AGAIN_S
            )


async def _compact(hub: Hub, every_s: float) -> None:
    """Remove old history now and then; of several processes on one database, one does it."""
    while True:
        await trio.sleep(every_s)
        try:
            report = await hub.compact()
        except AtomaError as error:
            _log.warning("nothing was compacted: %s", error)
        else:
            of = count(len(report.floors), "scope")
            _log.info("compacted: %s of %s", count(report.transactions, "transaction"), of)


def _certificate(chain: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if chain is None:
        if key is not None:
            raise ConfigurationError("--key needs --certificate")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(chain, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{chain}: the certificate cannot be used: {error}") from None
    return context


def load_served(name: str) -> Schema:
    """Return the schema of ``--schema`` for a hub that this command runs.

    Raises:
        ConfigurationError: There is no such schema; or its hub needs functions, which a command line cannot pass.
    """
    schema = schemas.load(name)
    needed = [
        f"{store.name}.{field}"
        for store in schema.stores.values()
        for field in (*store.sets.by_function, *sorted(store.merging.customs))
    ]
    if needed:
        raise ConfigurationError(
            f"--schema {name}: its hub needs functions for {', '.join(needed)}: open the hub in your own program, with "
            "open_hub(…, hub_fields=…, conflicts=…)"
        )
    return schema


def store_at(where: str) -> HubStore:
    """Return the hub store on a file or at an address.

    Raises:
        ConfigurationError: The address cannot be used or holds a password, or the extra is not installed.
    """
    return postgresql_at(where) if where.startswith(POSTGRESQL) else SQLiteHubStore(where)


async def held_version(where: str) -> int:
    """Return the schema version of the hub at ``where``; 0 if a database holds no hub.

    Raises:
        ConfigurationError: There is no such file, or the address cannot be used.
        StoreError: It is not a hub's file, or the database cannot be reached.
    """
    if where.startswith(POSTGRESQL):
        return await postgresql_at(where).held_version()
    return hub_files.read_schema(where).version


def postgresql_at(where: str) -> PostgreSQLHubStore:
    """Return the hub store at an address of PostgreSQL.

    Raises:
        ConfigurationError: The address cannot be used or holds a password, or the extra is not installed.
    """
    if _tells_password(where):
        raise ConfigurationError(
            "leave out the password, since everybody on this machine can read the command line; put it into PGPASSWORD or ~/.pgpass"
        )
    try:
        from atoma_stores.postgres import PostgreSQLHubStore
    except ModuleNotFoundError as missing:
        raise ConfigurationError(f"a hub on PostgreSQL cannot be opened: {missing.msg}") from None
    return PostgreSQLHubStore(where)


def _tells_password(where: str) -> bool:
    """Return whether an address holds a password, before the host or among its parameters."""
    before, _, parameters = where.partition("?")
    user = before.partition("://")[2].partition("/")[0].rpartition("@")[0]
    return ":" in user or any("password" in name for name, _ in parse_qsl(parameters, keep_blank_values=True))
