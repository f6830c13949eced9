"""Pre-built files: rows and cursors that an application ships, so that a new device begins with them and syncs the rest.

Such a file belongs to a hub and to no device: it has no identity, which every copy of it draws when it is first opened. It
contains nothing that belongs to the device on which it was made.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import cast

import apsw
from msgspec.structs import replace

from atoma.contracts.codec import decode, encode
from atoma.contracts.replica import ClientIdentity
from atoma.errors import ConfigurationError, StoreError
from atoma_stores.sqlite._history import prepare_history
from atoma_stores.sqlite.connections import open_existing
from atoma_stores.sqlite.copies import UNFINISHED, whole_file
from atoma_stores.sqlite.ddl import check_layout
from atoma_stores.sqlite.encryption import FileKey, optional_key
from atoma_stores.sqlite.meta import columns_of, read_meta, write_meta
from atoma_stores.sqlite.rekeying import rekey_copy

NOBODY = b""
"""The client id of a pre-built file."""
_OWN = (
    "_atoma_change", "_atoma_inbox", "_atoma_lost", "_atoma_process", "_atoma_quarantine", "_atoma_repair", "_atoma_stage",
    "_atoma_unit",
)  # fmt: skip
"""What a file has of its device's own, beside what waits to be sent."""


def make_prebuilt(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, key: bytes | str | None = None
) -> None:
    """Write to ``target`` what the device's file ``source`` has of its hub: the rows, and the progress of each scope.

    Its identity, its inbox and its history are left out. ``source`` may be open in a program; it is not changed. ``target`` is
    for everybody who has your application, so it is never encrypted, though ``source`` may be: ``key`` is the key of ``source``.

    Raises:
        ConfigurationError: There is no such file, or ``target`` exists already.
        WrongKey: ``key`` is not the key of ``source``.
        StoreError: It is not a device's file, it has waiting writes, a scope is not completely replicated yet, or
            ``target`` cannot be written.
    """
    path, made, has = os.fspath(source), os.fspath(target), optional_key(key)
    del key
    if os.path.exists(made):
        raise ConfigurationError(f"{made}: there is a file already; remove it, or choose another name")
    with whole_file(made, "the pre-built file cannot be written") as unfinished:
        with open_existing(path, writing=False, key=has) as connection:
            check_layout(connection, "client")
            connection.pragma("query_only", 0)
            connection.execute("VACUUM INTO ?", (unfinished,))
        with open_existing(unfinished, writing=True, key=has) as connection:
            _check_settled(connection, path)
            with connection:
                _strip(connection)
            connection.execute("VACUUM")  # what was deleted is in no free page either
        rekey_copy(unfinished, has, None)


def _check_settled(connection: apsw.Connection, path: str) -> None:
    waiting: object = connection.execute("SELECT count(*) FROM _atoma_pending").get
    if waiting:
        raise StoreError(f"{path}: {waiting} writes wait in this file, and are this device's; sync it first")
    for scope, state in connection.execute("SELECT scope, state FROM _atoma_sub WHERE state<>'live' ORDER BY scope"):
        raise StoreError(f"{path}: scope {scope!r} is {state}, not replicated to its end yet; sync it first")


def _strip(connection: apsw.Connection) -> None:
    """Take away what is the device's own, in the caller's transaction."""
    for table in _OWN:
        if columns_of(connection, table):
            connection.execute(f"DELETE FROM {table}")
    for used in ("_atoma_use", "_atoma_part"):
        if columns_of(connection, used):
            connection.execute(f"DELETE FROM {used} WHERE program<>0")
    prepare_history(connection, None, 0)
    identity = decode(cast("bytes", read_meta(connection, "identity")), ClientIdentity)
    nobody = ClientIdentity(
        NOBODY, 1, 1, b"", 0, identity.hub_id, "", behind=identity.behind, sent_mid=0, stores=identity.stores
    )
    write_meta(connection, "identity", encode(nobody))


def begin_with(prebuilt: str, path: str, key: FileKey | None) -> None:
    """Copy the pre-built file to ``path``, if nothing is there: whole or not at all, and never over another one.

    The copy is encrypted with ``key``, if there is one.

    Raises:
        ConfigurationError: There is no such file, or it is a device's own.
        StoreError: It is not a device's file, or the copy cannot be written.
    """
    if os.path.exists(path) and os.path.getsize(path):
        return
    with open_existing(prebuilt, writing=False) as connection:
        check_layout(connection, "client")
        identity = decode(cast("bytes", read_meta(connection, "identity")), ClientIdentity)
    if identity.client_id != NOBODY:
        raise ConfigurationError(
            f"{prebuilt}: this is a device's own file; make one to ship of it with make_prebuilt()"
        )
    mark = f".{os.getpid()}{UNFINISHED}"  # another program may begin at the same time
    with whole_file(path, "the pre-built file cannot be copied", mark=mark, put=_put) as unfinished:
        shutil.copyfile(prebuilt, unfinished)
        rekey_copy(unfinished, None, key)


def _put(unfinished: str, path: str) -> None:
    """Give the copy its name, unless another program that begins at the same time was faster."""
    if os.path.exists(path) and not os.path.getsize(path):
        os.unlink(path)
    try:
        os.link(unfinished, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not os.path.exists(path):
            os.replace(unfinished, path)


def own_identity(connection: apsw.Connection, draw: Callable[[], bytes]) -> None:
    """Give a file that is nobody's an identity, inside the transaction that opens it; ``draw`` gives the client id."""
    told = read_meta(connection, "identity")
    identity = (
        ClientIdentity(NOBODY, 1, 1, b"", 0, b"", "", sent_mid=0)
        if told is None
        else decode(cast("bytes", told), ClientIdentity)
    )
    if identity.client_id == NOBODY:
        write_meta(connection, "identity", encode(replace(identity, client_id=draw())))
