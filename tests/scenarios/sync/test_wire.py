"""Fields that travel encoded: devices hold the value, and nothing else than its encoding ever leaves them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from atoma import Index, Schema, StaticTokenVerifier, StoreSpec, col, open_client, open_hub, select
from atoma.errors import ConfigurationError, MigrationError, PolicyNotAllowed, SchemaError, ValidationError
from atoma.schema import Convert, Wire
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_stores.sqlite.connections import MEMORY
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.paths import memory
from tests.scenarios.sync.conftest import World
from tests.scenarios.sync.kit import back_up, copy_file, open_restored, put_in

pytestmark = pytest.mark.virtual_time

CANARY = "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""
    number: int | None = None
    color: str = "white"


def turned(data: bytes) -> bytes:
    return bytes(byte ^ 0x5A for byte in data)


TEXT = Wire[str](lambda text: turned(text.encode()), lambda data: turned(data).decode())
NUMBER = Wire[int](lambda number: turned(str(number).encode()), lambda data: int(turned(data)))
NOTES = StoreSpec("notes", Note, wire={"text": TEXT, "number": NUMBER}, indexes=[Index("text", unique=True)])


class Sealed(World):
    NOTES = NOTES
    SYNCED = (NOTES,)
    schema = Schema(NOTES)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Devices and a hub that share a schema in which two fields travel encoded."""
    return Sealed(tmp_path)


def check_sealed(world: Any, *devices: Any) -> None:
    """Nothing that was sent, and nothing that the hub has on its disk, holds the value."""
    for device in devices:
        sent = msgspec.msgpack.encode([request for _, request in device.wire.calls])
        assert CANARY.encode() not in sent
        assert turned(CANARY.encode()) in sent
    kept = b"".join(path.read_bytes() for path in world.folder.glob(f"{world.hub_file}*"))
    assert CANARY.encode() not in kept
    assert turned(CANARY.encode()) in kept


@pytest.mark.paths
async def test_no_value_leaves_in_clear_by_push_page_conflict_rebirth_or_offer(world: Any) -> None:
    async with world.open_hub():
        async with world.open_device("a") as a, world.open_device("b") as b:
            notes = a.store(NOTES)
            await notes.insert(Note(id="1", text=CANARY, number=7))
            await notes.insert(Note(id="2", number=None))
            await a.settle()
            await b.settle()
            assert await b.rows(NOTES) == await a.rows(NOTES)
            assert (await b.rows(NOTES))["1"] == Note(id="1", text=CANARY, number=7)
            a.wire.cut()
            await notes.update("1", text=f"{CANARY} of a")
            await b.store(NOTES).update("1", text=f"{CANARY} of b")
            await b.store(NOTES).update("1", color="red")
            await b.settle()
            await put_in(a)
            assert (await a.rows(NOTES))["1"] == Note(id="1", text=f"{CANARY} of a", number=7, color="red")
            assert [note.id for note in await notes.query(select(NOTES).where(col("text").like(f"{CANARY}%")))] == ["1"]
            assert [note.id for note in await notes.query(select(NOTES).where(col("number") > 6))] == ["1"]
            check_sealed(world, a, b)
        copy_file(world, "a", "copy")
    back_up(world)
    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.store(NOTES).update("1", text=f"{CANARY} again")
            await a.store(NOTES).insert(Note(id="3", text=f"{CANARY} 3"))
            await a.settle()
        async with world.open_device("copy", down=True) as copy:
            await copy.store(NOTES).insert(Note(id="4", text=f"{CANARY} 4"))
            await put_in(copy)
            assert len(await copy.sync.repairs()) == 1 and set(await copy.rows(NOTES)) == {"1", "2", "3", "4"}
            check_sealed(world, copy)
    async with open_restored(world):
        async with world.open_device("a") as a, world.open_device("copy") as copy:
            await a.settle()
            await copy.settle()
            await a.settle()
            assert {id: note.text for id, note in (await a.rows(NOTES)).items()} == {
                "1": f"{CANARY} again", "2": "", "3": f"{CANARY} 3", "4": f"{CANARY} 4"
            }  # fmt: skip
            assert sum(report.offered for report in await copy.sync.repairs()) > 0
            check_sealed(world, a)


async def test_a_device_that_cannot_decode_waits_visibly_and_loses_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.open_hub():
        async with world.open_device("a") as a:
            await a.store(NOTES).insert(Note(id="1", text=CANARY))
            await a.settle()

        def forgotten(data: bytes) -> str:
            raise LookupError("no key")

        other = StoreSpec("notes", Note, wire={"text": Wire[str](TEXT.encode, forgotten), "number": NUMBER})
        with monkeypatch.context() as patched:
            patched.setattr(world.__class__, "schema", Schema(other))
            patched.setattr(world.__class__, "SYNCED", (other,))
            async with world.open_device("b") as b:
                await trio.sleep(60)
                assert b.sync.status.state == "stalled"
                assert "notes.text cannot be decoded: LookupError: no key" in b.sync.status.reason
                with pytest.raises(ValidationError, match="what its wire can encode"):
                    await b.store(other).insert(Note(id="2", text="mine"))
        async with world.open_device("b") as b:
            await b.settle()
            assert await b.rows(NOTES) == {"1": Note(id="1", text=CANARY)}


NUMBERS: Iterator[int] = iter(range(256))


def another_each_time(text: str) -> bytes:
    return text.encode() + bytes([next(NUMBERS)])


@pytest.mark.parametrize(
    ("encode", "decode"),
    [
        (lambda text: text.lower().encode(), bytes.decode),
        (lambda text: text, lambda data: data),
        (lambda text: 1 / 0, bytes.decode),
        (str.encode, lambda data: 7),
        (another_each_time, lambda data: data[:-1].decode()),
    ],
)
async def test_a_pair_that_does_not_give_the_value_back_refuses_the_write(
    encode: Callable[[str], Any], decode: Callable[[bytes], Any]
) -> None:
    spec = StoreSpec("notes", Note, wire={"text": Wire(encode, decode)})
    async with open_client(Schema(spec), plugins=[LocalExecution(SQLiteEngine(memory()))]) as client:
        notes = client.store(spec)
        with pytest.raises(ValidationError, match=r"notes\.text wants") as caught:
            await notes.insert(Note(id="1", text="Text"))
        assert caught.value.field == "text"
        assert await notes.count() == 0


async def test_what_a_hub_could_not_do_is_refused_at_the_start() -> None:
    options: list[tuple[dict[str, Any], str]] = [
        ({"wire": {"id": TEXT}}, "'id' cannot have a wire"),
        ({"wire": {"color": TEXT}, "scope": "color"}, "'color' cannot have a wire"),
        ({"wire": {"text": TEXT}, "search": ["text"]}, "a hub could not search it"),
        ({"wire": {"text": TEXT}, "indexes": [Index(col("text").lower())]}, "a hub could not compute its index"),
        ({"wire": {"text": TEXT}, "indexes": [Index("id", where=col("text") == "x")]}, "could not compute its index"),
        ({"wire": {"nothing": TEXT}}, "which there is not"),
        ({"wire": {"text": 7}}, "wire maps fields to Wire"),
    ]
    for given, why in options:
        with pytest.raises(SchemaError, match=why):
            StoreSpec("notes", Note, **given)
    with pytest.raises(SchemaError, match="it can only be renamed"):
        Schema(NOTES, version=2, steps={2: [Convert("notes.number", was=str, by=int)]})
    direct = StoreSpec("notes", Note, wire={"text": TEXT}, replicate=False)
    verifier = StaticTokenVerifier({"token": "ann"})
    with pytest.raises(ConfigurationError, match="only devices can read it"):
        async with open_hub(
            Schema(direct),
            SQLiteHubStore(MEMORY),
            verifier=verifier,
            row_rules={"notes": lambda caller: col("text") == caller.subject},
        ):
            pass


async def test_no_direct_call_about_such_a_store_is_sent() -> None:
    network, verifier = MemoryNetwork(), StaticTokenVerifier({"token": "ann"})
    remote = Remote(MemoryTransport(network, token="token"))
    async with (
        open_hub(Sealed.schema, SQLiteHubStore(MEMORY), verifier=verifier) as hub,
        network.listen(hub),
        open_client(Sealed.schema, plugins=[remote], policy="direct-remote") as client,
    ):
        notes = client.store(NOTES)
        for call in (notes.insert(Note(id="1", text=CANARY)), notes.query(select(NOTES).where(col("text") == CANARY))):
            with pytest.raises(PolicyNotAllowed, match="travels encoded"):
                await call


async def test_a_hub_that_has_values_in_clear_does_not_take_them_for_encoded(tmp_path: Path) -> None:
    verifier, plain = StaticTokenVerifier({"token": "ann"}), StoreSpec("notes", Note)
    async with open_hub(Schema(plain), SQLiteHubStore(tmp_path / "hub.db"), verifier=verifier):
        pass
    with pytest.raises(MigrationError, match="text"):
        async with open_hub(Sealed.schema, SQLiteHubStore(tmp_path / "hub.db"), verifier=verifier):
            pass
