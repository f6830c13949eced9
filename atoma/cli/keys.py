"""The key of an encrypted file, for every command that opens one. It comes from a file or the environment, never from the command line."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from atoma.errors import AtomaError, ConfigurationError, WrongKey
from atoma_stores.sqlite.encryption import KEY_BYTES, FileKey, optional_key

VARIABLE = "ATOMA_KEY"
OPTION = "--key-file"
_KEPT = "key_that_was_read"
_DIGITS = re.compile(rf"[0-9A-Fa-f]{{{2 * KEY_BYTES}}}")


def add_option(command: argparse.ArgumentParser) -> None:
    """Add the option for the key of an encrypted file to a command."""
    command.add_argument(
        OPTION,
        type=Path,
        metavar="PATH",
        help=f"file that holds the key of an encrypted file; without it, the variable {VARIABLE} is read",
    )


def secret_of(options: argparse.Namespace) -> bytes | str | None:
    """Return the key that a command was given, as an engine takes it: 64 hexadecimal digits or 32 bytes; anything else is a passphrase.

    It is read once and kept with the options, because a shell's process substitution, ``<(…)``, can be read only once.

    Raises:
        ConfigurationError: The file cannot be read, or is empty.
    """
    kept = vars(options)
    if _KEPT not in kept:
        kept[_KEPT] = _read_secret(options.key_file)
    found: bytes | str | None = kept[_KEPT]
    return found


def _read_secret(path: Path | None) -> bytes | str | None:
    if path is None:
        text = os.environ.get(VARIABLE, "")
        return _read(text) if text else None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: the key cannot be read: {error.strerror}") from None
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and text:
        return _read(text)
    if content.strip():
        return content  # bytes; whether they are a key is the engine's to say
    raise ConfigurationError(f"{path}: the file holds no key")


def _read(text: str) -> bytes | str:
    return bytes.fromhex(text) if _DIGITS.fullmatch(text) else text


def key_of(options: argparse.Namespace) -> FileKey | None:
    """Return the key that a command was given; see :func:`secret_of`.

    Raises:
        ConfigurationError: It cannot be read, is not a key, or the installed apsw cannot encrypt.
    """
    return optional_key(secret_of(options))


def told(error: AtomaError) -> str:
    """Return the message of ``error``; if the key was wrong, with the places that a command takes it from."""
    return (
        f"{error} (give it with {OPTION} PATH or in the variable {VARIABLE})"
        if isinstance(error, WrongKey)
        else str(error)
    )
