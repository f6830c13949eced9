"""Checkpoints: where a client of documents is, in one opaque text that the hub keeps nothing about."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from atoma.codes import row
from atoma.contracts.codec import decode, encode
from atoma.contracts.sync import Cursor
from atoma.errors import ProtocolError, RemoteError
from atoma_transports.http.documents.messages import Checkpoint

PLACE_LENGTH_MAX = 4096


class CheckpointPosition(msgspec.Struct, frozen=True, array_like=True):
    """A position in one store of a scope: in a snapshot, and behind it in the log.

    Attributes:
        store: The store.
        scope: The scope.
        token: How the snapshot goes on; empty at its beginning and behind its end.
        cursor: Where the log goes on; None while there is a snapshot to read.
    """

    store: str
    scope: str
    token: bytes = b""
    cursor: Cursor | None = None


def checkpoint_of(place: CheckpointPosition) -> Checkpoint:
    """``place`` as clients keep it."""
    return Checkpoint(base64.urlsafe_b64encode(encode(place)).rstrip(b"=").decode())


def place_at(checkpoint: Checkpoint | None, store: str, scope: str) -> CheckpointPosition:
    """The place that ``checkpoint`` stands for; the beginning without one.

    Raises:
        RemoteError: ``MALFORMED``: it is none, or one of another store or scope.
    """
    if checkpoint is None:
        return CheckpointPosition(store, scope)
    text = checkpoint.at
    try:
        if len(text) > PLACE_LENGTH_MAX:
            raise ProtocolError("too long")
        place = decode(base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)), CheckpointPosition)
    except (ProtocolError, UnicodeError, binascii.Error):
        raise RemoteError("the checkpoint is damaged", remote_code="MALFORMED") from None
    if (place.store, place.scope) != (store, scope):
        raise RemoteError("the checkpoint is of another store or scope", remote_code="MALFORMED")
    return place


@contextmanager
def continued() -> Generator[None]:
    """Go on from a place: whatever makes a device take a snapshot makes a client of documents begin anew.

    Raises:
        RemoteError: ``RESYNC``; ``why`` in its facts is the code of what has happened.
    """
    try:
        yield
    except RemoteError as error:
        if row(error.remote_code).help != "resnapshot":
            raise
        message = f"the checkpoint cannot be continued: {error.args[0]}"
        raise RemoteError(message, remote_code="RESYNC", info={"why": error.remote_code}) from None
