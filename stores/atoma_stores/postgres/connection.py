"""One connection to PostgreSQL, driven by Trio: a batch of statements is one round trip, and no thread waits for it."""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

import psycopg
import trio
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from atoma.errors import ConfigurationError
from atoma_stores.postgres.codes import ConnectionLost, ServerError
from atoma_stores.postgres.faults import NO_FAULTS, Faults
from atoma_stores.postgres.wire import BINARY, shape_of
from atoma_stores.sql.scripts import Batch, Execute, ExecuteMany, Row, Value

PREPARED_MAX = 400
"""The number of statements that a connection keeps prepared; further ones are parsed every time."""
SETTINGS = {
    "client_encoding": "UTF8",
    "search_path": "pg_catalog",  # every table is qualified by its schema
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "idle_in_transaction_session_timeout": "3s",  # a stopped process releases its locks
    "lock_timeout": "8s",  # longer than that
    "statement_timeout": "10s",
    "tcp_user_timeout": "5s",
    "client_connection_check_interval": "1s",
}
"""The settings of every session."""
CONNECT_S = 10.0
OLDEST = 150_000


class Connection:
    """A connection, which is used by one task at a time and closed after an error that is not about a value.

    Attributes:
        in_transaction: Whether a transaction is open.
    """

    def __init__(self, pgconn: pq.abc.PGconn, faults: Faults) -> None:
        self._pgconn = pgconn
        self._faults = faults
        self._known: dict[str, bytes] = {}
        self._named = 0
        self._sent: deque[bool] = deque()  # for each command, whether it is a statement or prepares one
        self._owed = 0
        self._loader = Transformer(None)
        self.in_transaction = False

    @property
    def socket(self) -> int:
        """The file descriptor of the socket."""
        return self._pgconn.socket

    def close(self) -> None:
        """Close the connection; the server rolls back what was not committed."""
        self._pgconn.finish()

    async def trip(self, batch: Batch) -> list[Sequence[Row]]:
        """Send ``batch``, wait for all of it, and return the rows of each statement.

        Raises:
            ServerError: A statement failed, and those after it were not run.
            ConnectionLost: The connection was lost; the last batch may have been carried out.

        After it was cancelled, the connection can only be closed.
        """
        self.send(self._faults.before(batch))
        await self.flush()
        results = await self._receive()
        self._faults.after(batch)
        return results

    def send(self, batch: Batch) -> None:
        """Queue ``batch`` and its end; :meth:`flush` sends it."""
        try:
            for statement in batch:
                self._queue(statement.sql, _values(statement))
            self._pgconn.pipeline_sync()
        except psycopg.Error as error:
            raise ConnectionLost(str(error)) from None

    async def forget(self, batch: Batch) -> None:
        """Send ``batch`` and ignore the answer, as at the end of a transaction that only reads."""
        self.send(batch)
        self._owed += 1
        await self.flush()

    async def flush(self) -> None:
        """Send what is queued, and receive what the server sends meanwhile, as it may block until that is read."""
        try:
            while self._pgconn.flush():
                await self._readable_or_writable()
                self._pgconn.consume_input()
        except psycopg.Error as error:
            raise ConnectionLost(str(error)) from None

    async def wait(self) -> None:
        """Wait until the server sends something, and receive it."""
        await trio.lowlevel.wait_readable(self._pgconn.socket)
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            raise ConnectionLost(str(error)) from None

    def notices(self) -> list[str]:
        """Return the notifications that have arrived on the channels since the last call."""
        said: list[str] = []
        while (notice := self._pgconn.notifies()) is not None:
            said.append(notice.extra.decode())
        return said

    def _queue(self, sql: str, values: Sequence[Value]) -> None:
        shape, pgconn = shape_of(sql), self._pgconn
        sent = shape.write(values)
        name = self._known.get(sql)
        if name is None and len(self._known) >= PREPARED_MAX:
            pgconn.send_query_params(shape.text, sent, shape.numbers, shape.formats, BINARY)
        else:
            if name is None:
                self._named += 1
                name = self._known[sql] = f"a{self._named}".encode()
                pgconn.send_prepare(name, shape.text, shape.numbers)
                self._sent.append(False)
            pgconn.send_query_prepared(name, sent, shape.formats, BINARY)
        self._sent.append(True)

    async def _receive(self) -> list[Sequence[Row]]:
        """Return the results of the statements, up to the end of the batch that was sent last."""
        results: list[Sequence[Row]] = []
        error: ServerError | None = None
        while (result := await self._next()).status != pq.ExecStatus.PIPELINE_SYNC or self._owed:
            match result.status:
                case pq.ExecStatus.PIPELINE_SYNC:
                    self._owed -= 1
                    results, error = [], None
                case pq.ExecStatus.TUPLES_OK | pq.ExecStatus.COMMAND_OK:
                    if self._sent.popleft():
                        results.append(self._rows(result))
                case _:
                    failed = _error_of(result, len(results))
                    if failed.fatal or not self._sent:  # unsolicited: the server ends the session
                        raise ConnectionLost(str(failed))
                    if error is None:
                        error = failed
                        self._known.clear()  # statements that should have been prepared after it are not
                    self._sent.popleft()
        if error is not None:
            raise error
        return results

    async def _next(self) -> pq.abc.PGresult:
        while True:
            while self._pgconn.is_busy():
                await self.wait()
            result = self._pgconn.get_result()
            if result is not None:
                return result
            if self._pgconn.status != pq.ConnStatus.OK:
                raise ConnectionLost(self._pgconn.get_error_message())

    def _rows(self, result: pq.abc.PGresult) -> Sequence[Row]:
        if not result.ntuples:
            return ()
        self._loader.set_pgresult(result)
        return cast("list[Row]", self._loader.load_rows(0, result.ntuples, tuple))

    async def _readable_or_writable(self) -> None:
        poll = select.poll()
        poll.register(self._pgconn.socket, select.POLLIN | select.POLLOUT)
        if poll.poll(0):
            await trio.lowlevel.checkpoint()
            return
        async with trio.open_nursery() as nursery:

            async def until(ready: Callable[[int], Awaitable[None]]) -> None:
                await ready(self._pgconn.socket)
                nursery.cancel_scope.cancel()

            nursery.start_soon(until, trio.lowlevel.wait_readable)
            nursery.start_soon(until, trio.lowlevel.wait_writable)


async def connect(dsn: str, settings: Mapping[str, str], faults: Faults = NO_FAULTS) -> Connection:
    """Open a connection to the database at ``dsn``.

    Args:
        dsn: A URL or a line of keywords, in libpq's form.
        settings: The settings of the session.
        faults: Faults to inject.

    Raises:
        ConnectionLost: It could not be opened within ten seconds.
        ConfigurationError: The address cannot be parsed, or the server is too old.
    """
    line = await _resolved(dsn, settings)
    pgconn: pq.abc.PGconn | None = None
    try:
        with trio.fail_after(CONNECT_S):
            pgconn = pq.PGconn.connect_start(line.encode())
            while (status := pgconn.connect_poll()) != pq.PollingStatus.OK:
                if status == pq.PollingStatus.FAILED:
                    raise ConnectionLost(pgconn.get_error_message())
                reading = status == pq.PollingStatus.READING
                await (trio.lowlevel.wait_readable if reading else trio.lowlevel.wait_writable)(pgconn.socket)
        if pgconn.server_version < OLDEST:
            raise ConfigurationError(
                f"the hub needs PostgreSQL {OLDEST // 10_000} or later, not {pgconn.server_version // 10_000}"
            )
        pgconn.nonblocking = 1
        pgconn.enter_pipeline_mode()
        return Connection(pgconn, faults)
    except BaseException as error:
        if pgconn is not None:
            pgconn.finish()
        if isinstance(error, psycopg.Error | OSError | trio.TooSlowError):
            raise ConnectionLost(str(error) or f"no connection in {CONNECT_S:.0f} s") from None
        raise


def parse(dsn: str) -> dict[str, str | int | None]:
    """Return the parts of an address.

    Raises:
        ConfigurationError: It cannot be parsed.
    """
    try:
        return dict(conninfo_to_dict(dsn))
    except (psycopg.Error, UnicodeError):
        message = "this is not an address of a PostgreSQL database: write postgresql://user@host/database"
        raise ConfigurationError(message) from None  # libpq's message may quote a password


async def _resolved(dsn: str, settings: Mapping[str, str]) -> str:
    """Return the line for libpq, without a host name that it would resolve while everything else waits."""
    asked = parse(dsn)
    own = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
    asked["options"] = f"{own} {asked.get('options') or ''}".strip()
    asked.setdefault("application_name", "atoma")
    asked.setdefault("tcp_user_timeout", "5000")
    host = str(asked.get("host") or "")
    if host and not host.startswith(("/", "@")) and "," not in host and not asked.get("hostaddr"):
        try:
            found = await trio.socket.getaddrinfo(host, None, type=trio.socket.SOCK_STREAM)
        except OSError as error:
            raise ConnectionLost(f"{host}: {error}") from None
        addresses = list(dict.fromkeys(str(address[4][0]) for address in found))
        asked |= {"host": ",".join([host] * len(addresses)), "hostaddr": ",".join(addresses)}
    return make_conninfo("", **asked)


def _values(statement: Execute | ExecuteMany) -> Sequence[Value]:
    if isinstance(statement, Execute):
        return statement.values
    return [[row[at] for row in statement.rows] for at in range(len(statement.rows[0]))]


def _error_of(result: pq.abc.PGresult, at: int) -> ServerError:
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
    said = (message or result.error_message or b"").decode("utf-8", "replace")
    severity = result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
    return ServerError("" if state is None else state.decode(), said, at, fatal=severity in (b"FATAL", b"PANIC"))
