"""What a world knows of its files: what was seen and written, and whether hub and devices agree in the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from atoma.contracts.codec import decode
from atoma.contracts.mutations import MutationBody
from atoma.contracts.sync import Cursor
from atoma.plugins import PluginContext
from atoma.ports import LOCAL_DATABASE, Commit, CommitFeed, PortKey
from atoma.schema import Schema
from atoma.testing.seats import Device
from atoma.testing.simulation.files import RawFile
from atoma_stores.sql.names import quote

Key: TypeAlias = tuple[str, str]
"""Store and id of a row."""
Rows: TypeAlias = dict[Key, tuple[Any, ...]]

SHOWN = 5
_DIRECT = """SELECT c.store, c.id FROM _atoma_hub_change c JOIN _atoma_hub_tx t ON t.scope=c.scope AND t.seq=c.seq
    WHERE c.scope=? AND t.author=0 AND t.principal<>''"""


@dataclass(frozen=True, slots=True)
class Witness:
    """One device's view of one scope when the hub was restored.

    Attributes:
        device: Whose it is.
        scope: The scope.
        cursor: How far it was.
        rows: Its rows, but for those that it had changed itself and not sent yet.
        narrowed: Whether it had a part of the scope.
    """

    device: Device
    scope: str
    cursor: int
    rows: Rows
    narrowed: bool


@dataclass(slots=True)
class Evidence:
    """An observer of the files of a world.

    Attributes:
        schema: The declared stores.
        written: Rows that were written on some device since the hub was restored.
        witnesses: What devices had seen then; empty while the hub was not restored, or shall not get it back.
    """

    schema: Schema
    written: set[Key] = field(default_factory=set[Key])
    witnesses: list[Witness] = field(default_factory=list[Witness])

    def restored(
        self,
        devices: Iterable[Device],
        epoch: bytes,
        heads: Mapping[str, int],
        may_write: Callable[[Device, str], bool],
    ) -> None:
        """The hub was restored, and is to get back what devices have seen: remember what that is.

        Args:
            devices: Every device.
            epoch: The hub's epoch before. A device that was in another one makes its own history of it; then there is
                no telling here what has to come back.
            heads: How far the backup is in each scope.
            may_write: Whether a device may write in a scope, and so bring something back.
        """
        self.forget()
        witnesses: list[Witness] = []
        for device in devices:
            if not device.path.exists() or device.options.get("on_hub_loss", "offer") != "offer":
                continue
            with reading(device.path) as file:
                pending = set(file.rows("SELECT store, id FROM _atoma_pending_row"))
                self.written |= pending  # what was not sent yet is written when it is
                for scope, cursor in cursors(file).items():
                    if cursor.epoch != epoch:
                        return
                    if cursor.seq > heads.get(scope, 0) and may_write(device, scope):
                        rows = self._rows(file, scope)
                        seen = {key: row for key, row in rows.items() if key not in pending}
                        witnesses.append(Witness(device, scope, cursor.seq, seen, bool(cursor.view)))
        self.witnesses = witnesses

    def forget(self) -> None:
        """Claim nothing of what was before."""
        self.written.clear()
        self.witnesses = []

    def faults(self, hub: Path, devices: Iterable[Device], allow: Collection[str]) -> list[str]:
        """Everything that is not in order, in words."""
        found: list[str] = []
        with reading(hub) as at_hub:
            for device in devices:
                with reading(device.path) as file:
                    found += [f"  {device.name}: {fault}" for fault in self._of_device(file, at_hub, allow)]
            found += self._losses(at_hub)
        return found

    def _of_device(self, file: RawFile, hub: RawFile, allow: Collection[str]) -> Iterator[str]:
        pending = file.rows("SELECT count(*) FROM _atoma_pending")[0][0]
        if pending:
            yield f"{pending} of its writes are pending"
        for name, what in (("inbox", "entries wait in its inbox"), ("lost", "rows wait in its lost")):
            waiting = file.rows(f"SELECT count(*) FROM _atoma_{name} WHERE resolution=''")[0][0]
            if waiting and name not in allow:
                yield f"{waiting} {what}"
        heads = dict(hub.rows("SELECT scope, head FROM _atoma_hub_scope"))
        for scope, cursor in cursors(file).items():
            if cursor.seq != heads.get(scope, 0):
                yield f"scope {scope!r} is at {cursor.seq}, the hub at {heads.get(scope, 0)}"
                continue
            here, there = self._rows(file, scope), self._rows(hub, scope, like=file)
            if cursor.view:  # a rule or shapes narrow what is here, and which rows that are is not known
                there = _of_keys(there, here)
            if different := _difference(here, there, "here", "the hub"):
                yield f"scope {scope!r} is not as at the hub: {different}"

    def _losses(self, hub: RawFile) -> Iterator[str]:
        """What the best witness that has come back had seen before the restore, and is not so."""
        epoch = hub.rows("SELECT epoch FROM _atoma_hub_info")[0][0]
        for scope in sorted({witness.scope for witness in self.witnesses}):
            back = [one for one in self.witnesses if one.scope == scope and _is_in(one.device, scope, epoch)]
            best = max(back, key=lambda witness: witness.cursor, default=None)
            if best is None:
                continue
            touched = self.written | set(hub.rows(_DIRECT, scope))
            with reading(best.device.path) as file:
                now = self._rows(hub, scope, like=file)
            known = {key: row for key, row in best.rows.items() if key not in touched}
            now = {key: row for key, row in now.items() if key not in touched}
            if best.narrowed:
                now = _of_keys(now, known)
            if different := _difference(known, now, best.device.name, "the hub"):
                yield f"  scope {scope!r} did not come back as {best.device.name} had seen it before the restore: {different}"

    def _rows(self, file: RawFile, scope: str, *, like: RawFile | None = None) -> Rows:
        """The rows of a scope in the stores that replicate in the device's file ``like``, or in ``file`` itself."""
        found: Rows = {}
        for store in self.schema.stores.values():
            guard = f"_atoma_guard_{store.name}_insert"
            if not (like or file).rows("SELECT 1 FROM sqlite_schema WHERE name=?", guard):
                continue
            names = ", ".join(["id", *map(quote, store.value_columns)])
            for id, *values in file.rows(f"SELECT {names} FROM {quote(store.name)} WHERE _scope=?", scope):
                found[store.name, id] = tuple(values)
        return found


class WriteWatch:
    """A plugin that notes which rows are written on a device.

    Args:
        device: The name of the device.
        path: Its file.
        evidence: Where to note it.
    """

    provides: Sequence[PortKey[Any]] = ()
    needs: Sequence[PortKey[Any]] = (LOCAL_DATABASE,)

    def __init__(self, device: str, path: Path, evidence: Evidence) -> None:
        self.id = f"write-watch-{device}"
        self._path = path
        self._evidence = evidence
        self._seen = 0

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        """Note it until the client closes."""
        database = context.require(LOCAL_DATABASE)
        assert isinstance(database, CommitFeed)
        self._seen = 0
        undo = database.subscribe_commits(self._hear)
        try:
            yield
        finally:
            undo()

    def _hear(self, _commit: Commit) -> None:
        with reading(self._path) as file:
            for lsn, body in file.rows("SELECT lsn, body FROM _atoma_pending WHERE lsn>? ORDER BY lsn", self._seen):
                self._seen = lsn
                mutation = decode(body, MutationBody)
                if mutation.recovers is None:  # what is offered again was written before
                    self._evidence.written |= {(op.store, op.id) for op in mutation.ops}


@contextmanager
def reading(path: Path) -> Generator[RawFile]:
    """The file, in one snapshot."""
    file = RawFile(path)
    file.begin()
    try:
        yield file
    finally:
        file.end()
        file.close()


def cursors(file: RawFile) -> dict[str, Cursor]:
    """How far a device's file is in each scope."""
    return {scope: decode(cursor, Cursor) for scope, cursor in file.rows("SELECT scope, cursor FROM _atoma_sub")}


def _is_in(device: Device, scope: str, epoch: bytes) -> bool:
    """Whether the device has come back: its file is in the hub's epoch."""
    with reading(device.path) as file:
        at = cursors(file).get(scope)
    return at is not None and at.epoch == epoch


def _of_keys(rows: Rows, keys: Collection[Key]) -> Rows:
    return {key: row for key, row in rows.items() if key in keys}


def _difference(ours: Rows, theirs: Rows, here: str, there: str) -> str:
    keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    told = [
        f"{store} {id!r} is {ours.get((store, id))} {_at(here)}, {theirs.get((store, id))} {_at(there)}"
        for store, id in keys
    ]
    return "; ".join([*told[:SHOWN], *([f"and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else [])])


def _at(place: str) -> str:
    return place if place == "here" else f"at {place}"
