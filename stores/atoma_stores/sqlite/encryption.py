"""Encryption at rest: the key of every connection to a file, and the errors if key and file do not match.

The ciphers are those of SQLite3 Multiple Ciphers, which ``apsw-sqlite3mc`` brings. They encrypt every page of the main file, of
its log and of journals; ``-shm`` holds page numbers. SQLite's temporary tables stay in memory on every connection that is made here.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import hashlib

import apsw

from atoma.contracts.checks import is_a
from atoma.errors import ConfigurationError, WrongKey

KEY_BYTES = 32
SALT_BYTES = 16
HEADER_BYTES = 24
ROUNDS = 64_007
"""Number of rounds with which the cipher hashes a passphrase."""
RAW = "raw:"
"""The prefix of a raw key in SQL."""
PLAIN = b"SQLite format 3\0"
"""The first bytes of a file without encryption; an encrypted one begins with its salt."""
FRACTIONS = slice(21, 24), bytes((64, 32, 32))
"""The place of three constants in SQLite's header, which the cipher does not change."""
SWITCH = "pip uninstall apsw\n    pip install --force-reinstall apsw-sqlite3mc"
"""Both distributions own the package ``apsw``, so the one that is installed later wins."""


class FileKey:
    """A key that has been checked and is never shown.

    Args:
        secret: 32 random bytes, or a passphrase.

    Raises:
        ConfigurationError: ``secret`` is neither, or the installed apsw cannot encrypt.
    """

    __slots__ = ("_derived", "_secret")

    def __init__(self, secret: bytes | str) -> None:
        if not (is_a(secret, str) or (is_a(secret, bytes) and len(secret) == KEY_BYTES)):
            raise ConfigurationError(f"a key is {KEY_BYTES} random bytes, or a passphrase as text")
        if isinstance(secret, str) and not _is_passphrase(secret):
            raise ConfigurationError(
                f"a passphrase is text that UTF-8 can write, without NUL; {RAW!r} is no beginning of one: a raw key is given as bytes"
            )
        if not hasattr(apsw, "mc_version"):
            raise ConfigurationError(
                f"the installed apsw cannot encrypt; install the build of it that can:\n    {SWITCH}"
            )
        self._secret = secret
        self._derived: tuple[bytes, bytes] | None = None

    def __repr__(self) -> str:
        return "FileKey(…)"

    def __reduce__(self) -> str:
        raise TypeError("a key cannot be pickled")

    def unlock(self, connection: apsw.Connection, salt: bytes) -> None:
        """Make ``connection`` use the key, before anything else is done with it.

        Args:
            connection: A new one.
            salt: What the file begins with; empty for a new file.

        Raises:
            ConfigurationError: The connection's VFS does not encrypt.
        """
        if not self._says("key", connection, salt):
            raise ConfigurationError(
                "this VFS does not encrypt: a VFS of your own must inherit from SQLite's default one"
            )

    def becomes(self, connection: apsw.Connection) -> bool:
        """Encrypt the file of ``connection`` with this key instead of its present one; return whether that was done."""
        return self._says("rekey", connection, b"")

    def _says(self, pragma: str, connection: apsw.Connection, salt: bytes) -> bool:
        # What fails here has the text of the statement in its traceback: nothing of it is chained to another error.
        try:
            connection.execute(f"PRAGMA {pragma}='{self._literal(salt)}'", can_cache=False)
        except apsw.SQLError:
            return False
        return True

    def _literal(self, salt: bytes) -> str:
        if isinstance(self._secret, bytes):
            return RAW + self._secret.hex()
        if not salt:
            return self._secret.replace("'", "''")
        if self._derived is None or self._derived[0] != salt:  # once for a file, not for each of its connections
            self._derived = salt, hashlib.pbkdf2_hmac("sha256", self._secret.encode(), salt, ROUNDS, KEY_BYTES)
        return RAW + self._derived[1].hex()


def _is_passphrase(text: str) -> bool:
    try:
        return bool(text.encode()) and "\0" not in text and not text.lower().startswith(RAW)
    except UnicodeEncodeError:
        return False


def optional_key(secret: bytes | str | None) -> FileKey | None:
    """Return the key for ``secret``; None if none was given.

    Raises:
        ConfigurationError: It is not a key, or the installed apsw cannot encrypt.
    """
    return None if secret is None else FileKey(secret)


def unlock(connection: apsw.Connection, key: FileKey) -> None:
    """Make the new ``connection`` use ``key``, and check that it is the file's.

    Raises:
        WrongKey: It is not the file's, or the file is not encrypted.
        ConfigurationError: The connection's VFS does not encrypt.
    """
    header = _header(connection)
    if header.startswith(PLAIN):
        raise WrongKey(
            f"{connection.filename}: this file is not encrypted, and a key was given; encrypt it with change_key()"
        )
    key.unlock(connection, header[:SALT_BYTES])
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except apsw.NotADBError:
        raise WrongKey(f"{connection.filename}: the key is not this file's, or the file is damaged") from None


def is_encrypted(path: str) -> bool:
    """Return whether the file ``path``, which could not be read without a key, looks like an encrypted one."""
    try:
        # by SQLite: closing a file that it has open would take this process's locks on it away
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error:
        return False
    try:
        header = _header(connection)
    finally:
        connection.close()
    where, constants = FRACTIONS
    return not header.startswith(PLAIN) and header[where] == constants


def _header(connection: apsw.Connection) -> bytes:
    """How the file begins; empty for one that is still empty."""
    whole, header = connection.read("main", 0, 0, HEADER_BYTES)
    return header if whole else b""
