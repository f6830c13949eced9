"""What an engine knows of its file from one transaction to the next: it is what the file says, whatever came between."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest
import trio
from msgspec.structs import replace

from atoma.errors import DiskFull, StoreError
from atoma.ports import Environment
from atoma_stores.sqlite._rows import TxState
from atoma_stores.sqlite.device_files import ask_renewal
from atoma_stores.sqlite.engine import SQLiteEngine
from atoma_stores.sqlite.faults import fault_vfs
from tests.unit.stores.kit import SYNCED, Opened, inline, insert, opened


async def numbers(db: Opened) -> tuple[list[int], int]:
    """The numbers of what is pending, and the next one."""
    return await db.db.inspect(lambda tx: ([one.mid for one in tx.outbox.every()], tx.outbox.identity().next_mid))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hub_id", b"h" * 16),
        ("principal", "ann"),
        ("client_id", b"n" * 16),
        ("sent_mid", 2),
        ("confirmed_mid", 1),
        ("behind", 3),
    ],
)
async def test_an_identity_that_sync_has_saved_is_not_written_over(tmp_path: Path, field: str, value: object) -> None:
    async with opened(tmp_path / "a.db", synced=SYNCED) as db:
        for id in ("1", "2"):
            await db.queue(insert(id))
        await db.db.apply(lambda tx: tx.outbox.save_identity(replace(tx.outbox.identity(), **{field: value})))
        await db.queue(insert("3"))
        assert await db.db.inspect(lambda tx: getattr(tx.outbox.identity(), field)) == value


@pytest.mark.paths
async def test_a_file_that_several_have_open_is_written_to_after_another_program_has_asked_for_renewal(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    async with opened(path, synced=SYNCED) as one, opened(path, synced=SYNCED) as other:
        await one.queue(insert("1"))
        assert ask_renewal(str(path))
        for id, db in (("2", one), ("3", other), ("4", one)):
            await db.queue(insert(id))
        assert await numbers(other) == ([1, 2, 3, 4], 5)
        assert await other.db.inspect(lambda tx: tx.outbox.identity().renew)


async def test_a_unit_that_fails_at_its_end_leaves_no_number_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = TxState.index_searches

    def fail(state: TxState) -> None:  # as an index of words does that is damaged
        if "bad" in state.changes.get("cards", {}):
            raise apsw.CorruptError("malformed")
        follow(state)

    monkeypatch.setattr(TxState, "index_searches", fail)
    async with opened(tmp_path / "a.db", synced=SYNCED) as db:
        failed: list[str] = []

        async def write(id: str) -> None:
            try:
                await db.queue(insert(id))
            except StoreError:
                failed.append(id)

        async with trio.open_nursery() as nursery:
            for id in ("1", "2", "bad", "3", "4"):
                nursery.start_soon(write, id)
        assert failed == ["bad"]
        assert await numbers(db) == ([1, 2, 3, 4], 5)


@pytest.mark.parametrize("environment", [None, inline()], ids=["threads", "inline"])
async def test_a_commit_that_fails_is_forgotten_though_somebody_has_looked(
    tmp_path: Path, environment: Environment | None
) -> None:
    with fault_vfs("filling-known") as plan:
        engine = SQLiteEngine(tmp_path / "a.db", vfs="filling-known")
        async with opened(synced=SYNCED, environment=environment, engine=engine) as db:
            await db.queue(insert("1"))
            await db.db.inspect(lambda tx: tx.base.read("cards", "1"))
            plan.fail("write", "full")
            with pytest.raises(DiskFull):
                await db.queue(insert("2"))
            plan.heal()
            await db.queue(insert("3"))
            assert await numbers(db) == ([1, 2], 3)
