"""What was promised before a power cut, and what a file that is found after it has to say about it."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

import apsw

from atoma.contracts.codec import decode
from atoma.contracts.replica import ClientIdentity
from atoma_stores.sqlite.main_files import check_log, device_file

Machine: TypeAlias = Literal["device", "hub"]
MACHINES: tuple[Machine, ...] = ("device", "hub")
DATABASE: Mapping[Machine, str] = {"device": "device/a.db", "hub": "hub/hub.db"}
LOCK = "hub/hub.db.hub-lock"
RowKey: TypeAlias = tuple[str, str]
STORES = ("docs", "disputed", "own")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says.

    Attributes:
        rows: Texts of the visible rows.
        commit: The device's number of its last commit.
        identity: Who the device is.
        refused: How many refusals lie in the device's inbox.
        heads: The hub's sequence of each scope.
        decided: Last mutation of each client that the hub has decided.
        answers: Keys of direct writes that the hub has answered.
        epoch: The hub's epoch.
        expired: How many clients the hub has forgotten.
    """

    rows: Mapping[RowKey, str] | None = None
    commit: int = 0
    identity: ClientIdentity | None = None
    refused: int = 0
    heads: Mapping[str, int] | None = None
    decided: Mapping[bytes, int] | None = None
    answers: frozenset[str] = frozenset()
    epoch: bytes = b""
    expired: int = 0

    @property
    def is_new(self) -> bool:
        """Whether nothing is in the file yet."""
        return self.rows is None

    def last_mid(self, client_id: bytes) -> float:
        """The last decided mutation of a client; endless where the hub has forgotten clients, this one perhaps."""
        return (self.decided or {}).get(client_id, math.inf if self.expired else 0)


@dataclass(frozen=True, slots=True)
class Promise:
    """Something that must not be lost.

    Attributes:
        at: How many notes the disk had taken when it was made.
        what: What, for a person.
        kept: Whether a file keeps it.
        row: The row that it is about, if it is about one: then both machines keep it once they have talked.
    """

    at: int
    what: str
    kept: Callable[[Facts], bool]
    row: RowKey | None = None

    @property
    def kind(self) -> str:
        """What it says, but for numbers and names."""
        return re.sub(r"[0-9]+|\(.*\)", "…", self.what)


@contextmanager
def recovered(machine: Machine, folder: Path) -> Generator[apsw.Connection | None]:
    """The machine's database, opened by plain SQLite, which recovers it; None when there is nothing in it yet.

    Raises:
        apsw.Error: It is damaged.
        ForeignLog: A device would take its own log for another file's.
    """
    path = folder / DATABASE[machine]
    if not path.exists():
        yield None
        return
    connection = apsw.Connection(str(path))
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        if machine == "device":
            check_log(connection, device_file(str(path), None, None))
        yield connection if connection.execute("SELECT count(*) FROM sqlite_schema").get else None
    finally:
        connection.close()


def check_sound(connection: apsw.Connection) -> None:
    """Look at every page.

    Raises:
        apsw.Error: The database is damaged.
    """
    found: object = connection.execute("PRAGMA integrity_check").get
    if found != "ok":
        raise apsw.CorruptError(str(found))


def read_facts(machine: Machine, connection: apsw.Connection | None) -> Facts:
    """What a database says that is sound."""
    if connection is None:
        return Facts()
    rows = {
        (store, cast("str", id)): cast("str", text)
        for store in STORES
        for id, text in connection.execute(f"SELECT id, text FROM {store}")
    }
    return _device(connection, rows) if machine == "device" else _hub(connection, rows)


def _device(connection: apsw.Connection, rows: Mapping[RowKey, str]) -> Facts:
    identity: object = connection.execute("SELECT value FROM _atoma_meta WHERE key='identity'").get
    commit: object = connection.execute("SELECT value FROM _atoma_meta WHERE key='commit'").get
    refused: object = connection.execute("SELECT count(*) FROM _atoma_inbox").get
    assert isinstance(identity, bytes) and isinstance(commit, int) and isinstance(refused, int)
    return Facts(rows, commit=commit, identity=decode(identity, ClientIdentity), refused=refused)


def _hub(connection: apsw.Connection, rows: Mapping[RowKey, str]) -> Facts:
    info = connection.execute("SELECT epoch, (SELECT count(*) FROM _atoma_hub_expired) FROM _atoma_hub_info")
    epoch, expired = cast("tuple[bytes, int]", info.fetchone())
    heads = connection.execute("SELECT scope, head FROM _atoma_hub_scope")
    decided = connection.execute("SELECT client_id, last_mid FROM _atoma_hub_client")
    answers = connection.execute("SELECT idem FROM _atoma_hub_idem")
    return Facts(
        rows,
        heads={cast("str", scope): cast("int", head) for scope, head in heads},
        decided={cast("bytes", client): cast("int", mid) for client, mid in decided},
        answers=frozenset(cast("str", row[0]) for row in answers),
        epoch=epoch,
        expired=expired,
    )


def has_commit(number: int) -> Callable[[Facts], bool]:
    """The device has made commit ``number``."""
    return lambda facts: facts.commit >= number


def has_one_of(key: RowKey, texts: Sequence[str | None]) -> Callable[[Facts], bool]:
    """The row is as one of ``texts`` says, which may grow; None stands for no row."""
    return lambda facts: facts.rows is not None and facts.rows.get(key) in texts


def has_given_out(client_id: bytes, incarnation: int, mid: int) -> Callable[[Facts], bool]:
    """The device knows that it has sent mutation ``mid`` under this name, or has another name by now."""

    def kept(facts: Facts) -> bool:
        one = facts.identity
        if one is None or one.incarnation != incarnation:
            return one is not None and one.incarnation > incarnation
        return one.client_id == client_id and one.next_mid > mid

    return kept


def has_confirmed(incarnation: int, mid: int) -> Callable[[Facts], bool]:
    """The device knows that everything up to ``mid`` is settled, or has another name by now."""
    return lambda facts: (
        facts.identity is not None and (facts.identity.incarnation, facts.identity.confirmed_mid) >= (incarnation, mid)
    )


def has_refusals(count: int) -> Callable[[Facts], bool]:
    """The device has kept at least so many refusals."""
    return lambda facts: facts.refused >= count


def has_head(scope: str, seq: int) -> Callable[[Facts], bool]:
    """The hub's history of ``scope`` goes to ``seq``."""
    return lambda facts: seq == 0 or (facts.heads or {}).get(scope, 0) >= seq


def has_decided(client_id: bytes, mid: int) -> Callable[[Facts], bool]:
    """The hub has decided the client's mutation ``mid``."""
    return lambda facts: not facts.is_new and facts.last_mid(client_id) >= mid


def has_answered(idem: str) -> Callable[[Facts], bool]:
    """The hub knows that it has answered the direct write."""
    return lambda facts: any(key.startswith(idem) for key in facts.answers)


def has_epoch(epochs: Sequence[bytes], place: int) -> Callable[[Facts], bool]:
    """The hub is in the epoch at ``place`` of ``epochs``, or in a later one."""
    return lambda facts: facts.epoch in epochs[place:]
