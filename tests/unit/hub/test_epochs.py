"""What a client had seen is a number of one epoch: what it is worth in the hub's history now."""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from atoma.contracts.codec import encode
from atoma.contracts.mutations import MutationBody, Op, Origin, Recovers
from atoma.contracts.replica import longer_trail
from atoma.contracts.sync import TRAIL_MAX, Cursor, Mark, Place
from atoma.errors import MigrationError, RemoteError
from atoma.hub import Access
from atoma.ports.service import Principal
from tests.unit.hub.homes import Home
from tests.unit.hub.kit import SCHEMA, SCOPE, Client, card, hub_on

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
async def test_a_base_counts_up_to_where_its_epoch_ended(home: Home, named: str, base: int, status: str) -> None:
    async with hub_on(home.store()) as hub:
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


async def test_an_epoch_that_ended_behind_what_was_seen_hides_nothing(home: Home) -> None:
    """A needless epoch: nothing was lost, so what was seen before it counts in full."""
    async with hub_on(home.store()) as hub:
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
    connection.execute("UPDATE _atoma_meta SET value=4 WHERE key='format'")
    connection.close()
    with pytest.raises(MigrationError, match="file format 4 is newer than this program's 3"):
        async with hub_on(tmp_path / "hub.db"):
            pass


async def grow(client: Client, count: int) -> tuple[Cursor, tuple[Mark, ...]]:
    """Write ``count`` rows, one by one, and follow; where that leads and the marks of the way."""
    cursor = Cursor()
    trail = longer_trail((), cursor)
    for _ in range(count):
        number = len(client.mutations)
        await client.do(Op("create", "cards", f"{client.client_id[:1]!r}{number}", card("")))
        cursor = (await client.pull(cursor)).end
        trail = longer_trail(trail, cursor)
    return cursor, trail


@pytest.mark.parametrize("epoch", ["renewed", "renewed late", "not renewed"])
async def test_where_a_clients_history_leaves_that_of_a_restored_hub(tmp_path: Path, epoch: str) -> None:
    """Exact where the epoch was renewed before anybody wrote; else the last common mark, which is never too high."""
    live, backup = tmp_path / "hub.db", tmp_path / "backup.db"
    async with hub_on(live) as hub:
        seer = Client.of(hub, "seer")
        short, _ = await grow(seer, 13)
        assert (await seer.open(places=[Place(SCOPE, short)])).scopes[0].fork == 13
    shutil.copy(live, backup)
    async with hub_on(live) as hub:
        seer = seer.on(hub)
        await seer.do(Op("create", "cards", "later", card("")))
        await seer.do(Op("create", "cards", "latest", card("")))
        cursor, trail = short, longer_trail((), short)
        while cursor.seq < 15:
            cursor = (await seer.pull(cursor, max_changes=1)).end
            trail = longer_trail(trail, cursor)
    async with hub_on(backup) as hub:
        if epoch == "renewed":
            await hub.new_epoch()
        other = Client.of(hub, "other")
        await other.do(Op("create", "cards", "other", card("")))
        if epoch == "renewed late":
            await hub.new_epoch()
        seer = seer.on(hub)
        status = (await seer.open(places=[Place(SCOPE, cursor, trail)], tail=99)).scopes[0]
        assert status.fork == 13
        bare = (await seer.open(places=[Place(SCOPE, cursor)], tail=99)).scopes[0]
        # without marks there is the epoch alone; one that was renewed late is believed, and that is why it must not be
        assert bare.fork == {"renewed": 13, "renewed late": 14, "not renewed": 0}[epoch]
        assert (await seer.open(places=[Place(SCOPE, short)], tail=99)).scopes[0].fork == 13, "it has lost nothing"
        strange = Place(SCOPE, Cursor(b"?" * 16, cursor.seq, cursor.hash), trail)
        assert (await seer.open(places=[strange], tail=99)).scopes[0].fork == 13, "by the marks"


async def test_a_compacted_hub_still_knows_a_history_of_its_own(home: Home) -> None:
    """The log at the cursor is gone: too old, but not another history."""
    async with hub_on(home.store()) as hub:
        client = Client.of(hub, "a")
        await grow(client, 3)
        old = (await client.pull(max_changes=1)).end
        await hub.compact(keep=0)
        assert (await client.open(places=[Place(SCOPE, old)])).scopes[0].fork == 1
        await hub.new_epoch()
        assert (await client.open(places=[Place(SCOPE, old)])).scopes[0].fork == 1


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=200))
def test_a_trail_is_short_and_reaches_back(steps: list[int]) -> None:
    trail: tuple[Mark, ...] = ()
    seq = 0
    passed = set()
    for step in steps:
        seq += step
        passed.add(seq)
        trail = longer_trail(trail, Cursor(b"e", seq, b"h%d" % seq))
    found = [mark.seq for mark in trail]
    assert found == sorted(set(found)) and found[-1] == seq and len(found) <= TRAIL_MAX
    assert set(found) <= passed and all(mark.hash == b"h%d" % mark.seq for mark in trail)
    assert trail == longer_trail(trail, Cursor(b"other epoch", seq, b"h%d" % seq)), "the same place again"
    back = longer_trail(trail, Cursor(b"e", steps[0], b"another"))
    assert [mark.hash for mark in back] == [b"another"], "what was behind it is of another history"


async def test_only_a_client_that_has_pushed_leaves_a_trace(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        for name in ("a", "b", "c"):
            reply = await Client.of(hub, name).open()
            assert (reply.known, reply.last_mid, reply.last_digest) == (True, 0, b"")
        assert home.ask("SELECT count(*) FROM {client}") == [(0,)]
        await Client.of(hub, "a").do(Op("create", "cards", "1", card("")))
        assert home.ask("SELECT count(*) FROM {client}") == [(1,)]


async def test_verdicts_are_told_with_the_digests_they_are_about(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client, other = Client.of(hub, "a"), Client.of(hub, "o")
        await other.do(Op("create", "cards", "2", card("")))
        first = await client.do(Op("create", "cards", "1", card("")))
        second = await client.do(Op("create", "cards", "2", card("mine")))
        reply = await client.open(asked=[1, 2, 3])
        assert [(v.digest, v.outcome) for v in reply.verdicts] == [
            (client.digests[1], first), (client.digests[2], second)
        ]  # fmt: skip
        assert second.status == "rejected" and second.conflicts
        with pytest.raises(RemoteError) as foreign:
            await Client.of(hub, "a", user="eve").open(asked=[1])
        assert foreign.value.remote_code == "WRONG_HUB"
        with pytest.raises(RemoteError) as many:
            await client.open(asked=range(1, 1000))
        assert many.value.remote_code == "TOO_LARGE"


async def test_a_client_that_was_forgotten_is_told_so_and_not_taken_for_a_new_one(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        gone, there = Client.of(hub, "gone"), Client.of(hub, "there")
        await gone.do(Op("create", "cards", "1", card("")))
        assert (await hub.compact(client_days=400)).clients == 0
        assert (await hub.compact(client_days=-1)).clients == 1
        await there.do(Op("patch", "cards", "1", {"title": "theirs"}), base=1)
        assert not (await gone.open()).known
        gone.write(Op("patch", "cards", "1", {"title": "mine"}), base=1)
        with pytest.raises(RemoteError) as expired:
            await gone.push(2)
        assert expired.value.remote_code == "CLIENT_EXPIRED"
        assert (await there.open()).known and (await Client.of(hub, "new").open()).known
        assert (await there.query())["1"]["title"] == "theirs"


@pytest.mark.parametrize("first", ["old name", "new name"])
async def test_a_mutation_has_one_effect_under_all_its_names(home: Home, first: str) -> None:
    async with hub_on(home.store()) as hub:
        old, reborn, thief = Client.of(hub, "old"), Client.of(hub, "new"), Client.of(hub, "thief", user="eve")
        old.write(Op("create", "cards", "1", card("t")))
        origin = Origin(old.client_id, 1, old.digests[1])
        for client, title in ((reborn, "t"), (thief, "stolen")):
            body = MutationBody(1, "key", SCOPE, 0, 1, 0, (Op("create", "cards", "1", card(title)),), origin=origin)
            client.write(body=encode(body))
        order = [old, reborn] if first == "old name" else [reborn, old]
        outcomes = [(await client.push()).outcomes[0] for client in order]
        assert [(one.status, one.seq, one.mid) for one in outcomes] == [("applied", 1, 1)] * 2
        assert (await old.open()).scopes[0].head == 1
        assert (await thief.push()).outcomes[0].status == "rejected", "the name of somebody else's mutation is nobody's"
        assert (await hub.compact(keep_days=-1)).aliases == 0, "the outcome it leads to is still there"
        for client in order:
            await client.push(2, confirmed=1)
        assert (await hub.compact(keep_days=-1)).aliases >= 1


async def test_a_name_that_another_mutation_had_says_that_this_one_was_not_decided_under_it(home: Home) -> None:
    async with hub_on(home.store()) as hub:
        client, other = Client.of(hub, "a"), Client.of(hub, "o")
        await client.do(Op("create", "cards", "1", card("")))
        await other.do(Op("patch", "cards", "1", {"title": "theirs"}), base=1)
        again = (Op("patch", "cards", "1", {"title": "mine"}),)
        for mid, title in ((1, "mine"), (2, "mine")):
            origin = Origin(client.client_id, mid, b"of what it was" + bytes(18))
            number = len(client.mutations) + 1
            client.write(body=encode(MutationBody(number, f"key {mid}", SCOPE, 1, 1, 0, again, origin=origin)))
            outcome = (await client.push(number)).outcomes[0]
            assert outcome.error is None, "its number had another one, or nobody yet"
            assert (await client.query())["1"]["title"] == title


async def test_of_several_rows_that_are_offered_together_each_counts_by_itself(home: Home) -> None:
    """Together they are written or refused; a row that a device has brought which had seen more stays as that one saw it."""
    async with hub_on(home.store()) as hub:
        client, other, writer = Client.of(hub, "a"), Client.of(hub, "o"), Client.of(hub, "w")
        pages = [await client.pull()]
        for id in "123":
            await writer.do(Op("create", "cards", id, card("before")))
            pages.append(await client.pull())
        epoch = pages[-1].end.epoch
        await hub.new_epoch()
        earlier, later = (Recovers(epoch, page.end.seq, page.end.hash, page.proof) for page in pages[2:])

        def bring(title: str, ids: str) -> list[Op]:
            return [Op("replace", "cards", id, card(title)) for id in ids]

        async def titles() -> dict[str, str]:
            return {id: str(row["title"]) for id, row in (await client.query()).items()}

        assert (await other.do(*bring("best", "1"), base=3, recovers=later, epoch=epoch)).status == "applied"
        mixed = await client.do(*bring("older", "12"), base=3, recovers=earlier, epoch=epoch)
        assert mixed.status == "applied" and await titles() == {"1": "best", "2": "older", "3": "before"}
        none = await client.do(*bring("oldest", "1"), base=3, recovers=earlier, epoch=epoch)
        assert none.status == "superseded"
        again = await other.do(*bring("best", "12"), base=3, recovers=later, epoch=epoch)
        assert again.status == "applied" and await titles() == {"1": "best", "2": "best", "3": "before"}
        await writer.do(Op("patch", "cards", "3", {"title": "new"}), base=3, epoch=epoch)
        refused = await other.do(*bring("lost", "32"), base=3, recovers=later, epoch=epoch)
        assert refused.error is not None and refused.error.code == "HUB_LOST_DATA"
        assert [conflict.id for conflict in refused.conflicts] == ["3"]
        twice = await other.do(*bring("twice", "22"), base=3, recovers=later, epoch=epoch)
        assert twice.error is not None and twice.error.code == "INVALID"
        assert await titles() == {"1": "best", "2": "best", "3": "new"}


class OnlyRead:
    """Rules by which one user may read and not write."""

    def scope_access(self, principal: Principal, scope: str) -> Access:
        return "read" if principal.subject == "reader" else "write"


async def test_an_offer_of_somebody_who_may_not_write_decides_nothing(home: Home) -> None:
    """Whoever had seen the row deleted is heard; a refused offer from there says otherwise, and has to be of one who may make it."""
    async with hub_on(home.store(), rules=OnlyRead()) as hub:
        reader, deleter, older = Client.of(hub, "r", "reader"), Client.of(hub, "d"), Client.of(hub, "o")
        await deleter.do(Op("create", "cards", "1", card("deleted")))
        there = await older.pull()
        await deleter.do(Op("delete", "cards", "1"), base=1)
        page = await deleter.pull(there.end)
        await hub.new_epoch()
        earlier, later = (Recovers(each.end.epoch, each.end.seq, each.end.hash, each.proof) for each in (there, page))
        bring = Op("replace", "cards", "1", card("brought"))
        epoch = page.end.epoch
        denied = await reader.do(bring, base=2, recovers=later, epoch=epoch)
        assert denied.error is not None and denied.error.code == "DENIED"
        assert (await deleter.do(base=2, recovers=replace(later, last=True), epoch=epoch)).status == "applied"
        assert (await older.do(bring, base=2, recovers=earlier, epoch=epoch)).status == "superseded"
        assert await older.query() == {}


async def test_a_position_that_was_never_reached_decides_nothing(home: Home) -> None:
    """Whoever offers from the largest position wins, so positions are proved."""
    async with hub_on(home.store()) as hub:
        client, other = Client.of(hub, "a"), Client.of(hub, "o")
        await other.do(Op("create", "cards", "0", card("before")))
        earlier = await client.pull()
        await other.do(Op("create", "cards", "1", card("theirs")))
        page = await client.pull()
        lineage, proof, epoch = page.end.hash, page.proof, page.end.epoch
        await hub.new_epoch()
        op = Op("replace", "cards", "1", card("liar's"))
        true = Recovers(epoch, page.end.seq, lineage, proof)
        for lie in (
            replace(true, seq=2**62),
            replace(true, hash=b"x" * 16),
            replace(true, proof=b""),
            replace(true, last=True),  # with an operation
        ):
            outcome = await client.do(op, recovers=lie)
            assert outcome.error is not None and outcome.error.code == "INVALID", outcome
        for wrong in (Op("patch", "cards", "1", {"title": "x"}), Op("create", "cards", "2", card(""))):
            outcome = await client.do(wrong, recovers=true)
            assert outcome.error is not None and outcome.error.code == "INVALID"
        refused = await client.do(op, recovers=true)
        assert refused.error is not None and refused.error.code == "HUB_LOST_DATA", "row 1 came behind the fork 0"
        told = await client.do(op, base=2, recovers=true, epoch=epoch)
        assert told.status == "applied" and (await client.query())["1"]["title"] == "liar's"
        assert (await client.do(base=1, recovers=replace(true, last=True), epoch=epoch)).status == "applied"
        first = Recovers(epoch, earlier.end.seq, earlier.end.hash, earlier.proof)
        late = await other.do(Op("replace", "cards", "2", card("older")), base=1, recovers=first, epoch=epoch)
        assert late.status == "superseded", "everything up to there is in"
