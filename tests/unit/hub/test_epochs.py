"""What a client had seen is a number of one epoch: what it is worth in the hub's history now."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from atoma.contracts.sync import Op
from atoma.errors import MigrationError
from tests.unit.hub.kit import SCHEMA, Client, card, hub_on

MINE = Op("patch", "hands", "1", {"title": "mine"})


@pytest.mark.parametrize(
    ("named", "base", "status"),
    [
        ("present", 4, "applied"),
        ("present", 2, "rejected"),
        ("ended", 1, "rejected"),
        ("ended", 2, "rejected"),  # it ended at 2, and what came behind is another history's 3 and 4
        ("ended", 9, "rejected"),
        ("unknown", 9, "rejected"),
        ("none", 9, "rejected"),
    ],
)
async def test_a_base_counts_up_to_where_its_epoch_ended(tmp_path: Path, named: str, base: int, status: str) -> None:
    async with hub_on(tmp_path / "hub.db") as hub:
        owner, client = Client.of(hub, "o"), Client.of(hub, "a")
        epochs = {"ended": hub.identity.epoch, "unknown": b"?" * 16, "none": b""}
        await owner.do(Op("create", "hands", "1", card("first")))
        await owner.do(Op("create", "hands", "2", card("")))
        await hub.new_epoch()
        epochs["present"] = hub.identity.epoch
        await owner.do(Op("create", "hands", "3", card("")))
        await owner.do(Op("patch", "hands", "1", {"title": "theirs"}))
        outcome = await client.do(MINE, base=base, epoch=epochs[named])
        assert outcome.status == status, outcome


async def test_an_epoch_that_ended_behind_what_was_seen_hides_nothing(tmp_path: Path) -> None:
    """A needless epoch: nothing was lost, so what was seen before it counts in full."""
    async with hub_on(tmp_path / "hub.db") as hub:
        owner, client = Client.of(hub, "o"), Client.of(hub, "a")
        before = hub.identity.epoch
        await owner.do(Op("create", "hands", "1", card("first")))
        await owner.do(Op("patch", "hands", "1", {"title": "theirs"}))
        await hub.new_epoch()
        await hub.new_epoch()
        assert (await client.do(MINE, base=2, epoch=before)).status == "applied"
        assert (await client.do(MINE, base=2)).status == "applied", "no epoch named, and all of them ended at 2"


def as_the_first_version_made_it(path: Path) -> None:
    """Take away what the first version of the format did not have."""
    connection = apsw.Connection(str(path))
    connection.execute("DROP TABLE _atoma_hub_epoch; DROP TABLE _atoma_hub_epoch_end")
    connection.execute("ALTER TABLE _atoma_hub_tombstone DROP COLUMN other_seq")
    for store in SCHEMA.stores.values():
        connection.execute(f"ALTER TABLE {store.name} DROP COLUMN _other_seq")
    connection.execute("UPDATE _atoma_meta SET value=1 WHERE key='format'")
    connection.close()


@pytest.mark.parametrize("log", ["kept", "gone"])
async def test_a_file_of_the_first_format_opens_and_hides_no_change(tmp_path: Path, log: str) -> None:
    """Where nothing was kept about a row, the log tells; where that is gone, anything below the floor may be theirs."""
    path = tmp_path / "hub.db"
    async with hub_on(path) as hub:
        owner, client = Client.of(hub, "o"), Client.of(hub, "a")
        await client.do(Op("create", "hands", "1", card("first")))
        await client.do(Op("create", "hands", "2", card("only mine")))
        await owner.do(Op("patch", "hands", "1", {"title": "theirs"}), base=2)
        await client.do(Op("patch", "hands", "1", {"title": "mine"}), base=3)
        await client.do(Op("patch", "hands", "2", {"title": "still only mine"}), base=3)
        if log == "gone":
            await hub.compact(keep=0)
    as_the_first_version_made_it(path)
    async with hub_on(path) as hub:
        client = client.on(hub)
        if log == "kept":
            assert (await client.do(Op("patch", "hands", "1", {"rank": 1.0}), base=5)).status == "applied"
            await hub.compact(keep=0)
        late = await client.do(Op("patch", "hands", "1", {"title": "mine again"}), base=2)
        assert late.status == "rejected", "it had not seen the other's change"
        if log == "kept":
            told = await client.do(Op("patch", "hands", "1", {"title": "mine again"}), base=3)
            assert told.status == "applied", "it had, and nobody else has changed the row since"
        seen = await client.do(Op("patch", "hands", "1", {"lane": "done"}), base=5)
        assert seen.status == "applied", "it had seen everything there was"


async def test_a_file_of_a_later_format_is_refused(tmp_path: Path) -> None:
    async with hub_on(tmp_path / "hub.db"):
        pass
    connection = apsw.Connection(str(tmp_path / "hub.db"))
    connection.execute("UPDATE _atoma_meta SET value=3 WHERE key='format'")
    connection.close()
    with pytest.raises(MigrationError, match="file format 3 is newer than this program's 2"):
        async with hub_on(tmp_path / "hub.db"):
            pass
