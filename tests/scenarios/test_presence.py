"""Who is here: seen by whoever may read the scope, gone with the session or its lease, and never stored."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma.contracts.presence import LEASE_S, AppearRequest, PresenceChange, PresenceRequest, Present
from atoma.errors import ClosedError, ConfigurationError, PluginError, RemoteError, ValidationError
from atoma.hub import Access, Hub, PresenceLimits
from atoma.ports.service import Principal
from atoma.sync import Other, Presence
from tests.scenarios.sync.conftest import World

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A folder for a hub and devices."""
    return World(tmp_path)


@dataclass(frozen=True)
class At:
    """Where somebody is."""

    card: str = ""
    typing: bool = False


def seen(here: Presence[Any]) -> dict[str, Any]:
    """What the others say, by subject."""
    return {other.subject: other.state for other in here.others}


async def settled() -> None:
    """Long enough for whatever is told at once, and less than a lease."""
    await trio.sleep(1)


async def test_those_in_a_scope_see_each_other_come_change_and_leave(world: Any) -> None:
    async with (
        world.open_hub(),
        world.open_device("a", principal="ann") as a,
        world.open_device("b", principal="bob") as b,
        a.client.presence("main", At("1")) as ann,
    ):
        await settled()
        assert (ann.connected, ann.error, ann.others, ann.state, ann.scope) == (True, None, (), At("1"), "main")
        async with b.client.presence("main", At("2")) as bob:
            await settled()
            assert (seen(ann), seen(bob)) == ({"bob": At("2")}, {"ann": At("1")})
            bob.update(At("2", typing=True))
            await settled()
            assert seen(ann) == {"bob": At("2", typing=True)}
            async with b.client.presence("aside", At("3")) as elsewhere:
                await settled()
                assert (elsewhere.others, seen(ann)) == ((), {"bob": At("2", typing=True)})
            left_at = trio.current_time()
        await trio.sleep(0.2)
        assert (ann.others, trio.current_time() - left_at < LEASE_S / 10) == ((), True)


async def test_each_presence_of_a_user_is_one_of_its_own(world: Any) -> None:
    async with (
        world.open_hub(),
        world.open_device("a") as a,
        world.open_device("b") as b,
        a.client.presence("main", At("1")) as first,
        b.client.presence("main", At("2")) as second,
        b.client.presence("main", At("3")) as third,
    ):
        await settled()
        assert sorted(other.state.card for other in first.others) == ["2", "3"]
        assert {other.subject for other in first.others} == {"ann"}
        assert len({other.session for here in (first, second, third) for other in here.others}) == 3


async def test_a_lost_device_is_shown_for_a_lease_and_not_longer(world: Any) -> None:
    async with (
        world.open_hub(),
        world.open_device("a", principal="ann") as a,
        world.open_device("b", principal="bob") as b,
        a.client.presence("main", At("1")) as ann,
        b.client.presence("main", At("2")) as bob,
    ):
        await settled()
        b.wire.cut()
        await trio.sleep(LEASE_S - 1)
        assert (seen(ann), seen(bob), bob.connected) == ({"bob": At("2")}, {"ann": At("1")}, False)
        assert bob.error is not None
        await trio.sleep(2)
        assert (ann.others, bob.others) == ((), ()), "neither side knows of the other any more"
        bob.update(At("4"))
        b.wire.repair()
        await trio.sleep(20)
        assert (seen(ann), seen(bob), bob.error) == ({"bob": At("4")}, {"ann": At("1")}, None)


async def test_a_short_loss_is_not_seen_by_anybody(world: Any) -> None:
    shown: list[tuple[Other[At], ...]] = []
    async with (
        world.open_hub(),
        world.open_device("a", principal="ann") as a,
        world.open_device("b", principal="bob") as b,
        a.client.presence("main", At("1")) as ann,
        b.client.presence("main", At("2")) as bob,
    ):
        await settled()
        undo = ann.subscribe(shown.append)
        b.wire.cut()
        b.wire.repair()
        await trio.sleep(LEASE_S * 2)
        undo()
        assert (bob.connected, [[other.state for other in others] for others in shown]) == (True, [[At("2")]])


async def test_a_second_loss_is_shown_for_a_lease_of_its_own(world: Any) -> None:
    async with (
        world.open_hub(),
        world.open_device("a", principal="ann") as a,
        world.open_device("b", principal="bob") as b,
        a.client.presence("main", At("1")),
        b.client.presence("main", At("2")) as bob,
    ):
        await settled()
        for _ in range(2):
            b.wire.cut()
            b.wire.repair()
            await trio.sleep(LEASE_S / 2)
            assert bob.connected
        b.wire.cut()
        await trio.sleep(LEASE_S * 3 / 4)
        assert (seen(bob), bob.connected) == ({"ann": At("1")}, False)
        await trio.sleep(LEASE_S / 2)
        assert bob.others == ()


async def test_a_presence_that_the_hub_has_not_answered_yet_says_so(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.open_hub(), world.open_device("a", down=True) as a, a.client.presence("main", At("1")) as here:
        assert (here.connected, here.error) == (False, None)
        await settled()
        assert not here.connected and here.error is not None
    assert "unexpectedly" not in caplog.text


async def test_what_follows_quickly_is_told_as_the_last_of_it(world: Any) -> None:
    async with (
        world.open_hub(),
        world.open_device("a", principal="ann") as a,
        world.open_device("b", principal="bob") as b,
        a.client.presence("main", At()) as ann,
        b.client.presence("main", At()) as bob,
    ):
        await settled()
        for number in range(1_000):
            bob.update(At(str(number)))
            await trio.sleep(0.001)
        await settled()
        assert (seen(ann), b.wire.count("appear") <= 12) == ({"bob": At("999")}, True)


async def test_the_others_are_iterated_over_and_the_iteration_ends_with_the_presence(world: Any) -> None:
    told: list[dict[str, Any]] = []
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b", principal="bob") as b:
        async with trio.open_nursery() as nursery, a.client.presence("main", At()) as ann:

            async def follow() -> None:
                async with ann.watch() as values:
                    async for others in values:
                        told.append({other.subject: other.state for other in others})

            nursery.start_soon(follow)
            async with b.client.presence("main", At("1")) as bob:
                await settled()
                bob.update(At("2"))
                await settled()
            await settled()
    assert told == [{}, {"bob": At("1")}, {"bob": At("2")}, {}]


async def test_a_device_that_pauses_is_nowhere(world: Any) -> None:
    async with (
        world.open_hub(),
        world.open_device("a", principal="ann") as a,
        world.open_device("b", principal="bob", mode="manual") as b,
        a.client.presence("main", At("1")) as ann,
        b.client.presence("main", At("2")) as bob,
    ):
        await settled()
        assert seen(ann) == {"bob": At("2")}, "syncing by hand has nothing to do with it"
        b.sync.pause()
        await settled()
        assert (ann.others, bob.connected) == ((), False)
        bob.update(At("3"))
        b.sync.resume()
        await settled()
        assert (seen(ann), seen(bob)) == ({"bob": At("3")}, {"ann": At("1")})


async def test_a_device_that_pauses_shows_the_others_for_a_lease_and_not_longer(world: Any) -> None:
    async with (
        world.open_hub(),
        world.open_device("a", principal="ann") as a,
        world.open_device("b", principal="bob") as b,
        a.client.presence("main", At("1")) as ann,
        b.client.presence("main", At("2")) as bob,
    ):
        await settled()
        b.sync.pause()
        await trio.sleep(LEASE_S - 1)
        assert (seen(bob), bob.connected) == ({"ann": At("1")}, False)
        await trio.sleep(2)
        assert bob.others == ()
        b.sync.resume()
        await settled()
        assert (seen(ann), seen(bob)) == ({"bob": At("2")}, {"ann": At("1")})


async def test_leaving_after_a_pause_waits_until_the_hub_knows(world: Any) -> None:
    async with world.open_hub(), world.open_device("b") as b:
        b.wire.latency = lambda: 0.1
        async with b.client.presence("main", At()) as bob:
            await settled()
            b.sync.pause()
            await settled()
            b.sync.resume()
            await settled()
            assert bob.connected
        told = [request for method, request in b.wire.calls if method == "appear"]
        assert [request.state for request in told] == [None, None], "at the pause, and at the end of the block"


async def test_a_pause_that_ends_while_the_hub_is_told_of_it_leaves_nobody_behind(world: Any) -> None:
    async with (
        world.open_hub(),
        world.open_device("b") as b,
        b.client.presence("main", At()) as quick,
        b.client.presence("aside", At()) as slow,
    ):
        await settled()
        delays = iter([0.0, 0.5])  # the hub hears of one at once, and of the other one only after the pause
        b.wire.latency = lambda: next(delays, 0.0)
        b.sync.pause()
        await trio.sleep(0.2)
        b.sync.resume()
        await trio.sleep(LEASE_S)
        assert (quick.connected, slow.connected) == (True, True)


async def test_a_program_that_follows_another_one_is_present_as_well(world: Any) -> None:
    async with (
        world.open_hub(),
        world.open_device("a", file="one.db") as leads,
        world.open_device("b", file="one.db") as follows,
        world.open_device("c", principal="cid") as c,
        leads.client.presence("main", At("1")),
        follows.client.presence("main", At("2")),
        c.client.presence("main", At()) as cid,
    ):
        await trio.sleep(10)
        assert sorted(other.state.card for other in cid.others) == ["1", "2"]


async def test_nothing_of_it_is_stored(world: Any) -> None:
    secret = "presence-that-nobody-stores"
    async with world.open_hub() as hub, world.open_device("a") as a, world.open_device("b", principal="bob") as b:
        async with a.client.presence("main", At(secret)), b.client.presence("main", At()) as bob:
            await a.store(world.CARDS).insert(world.Card(id="1", title="stored"))
            await a.settle()
            await settled()
            assert seen(bob)["ann"] == At(secret)
            await hub.compact()
            files = {path: path.read_bytes() for path in world.folder.iterdir() if path.is_file()}
            assert any(b"stored" in data for data in files.values()), "what is stored would be found"
            assert [path.name for path, data in files.items() if secret.encode() in data] == []


@dataclass
class Walls:
    """Whoever is named may read the vault; everybody may write in the rest."""

    inside: set[str]

    def scope_access(self, principal: Principal, scope: str) -> Access:
        if scope != "vault":
            return "write"
        return "read" if principal.subject in self.inside else "none"


async def test_whoever_may_not_read_a_scope_sees_nobody_there_and_is_seen_by_nobody(world: Any) -> None:
    walls = Walls({"ann", "bob"})
    async with (
        world.open_hub(rules=walls),
        world.open_device("a", principal="ann") as a,
        world.open_device("b", principal="bob") as b,
        world.open_device("e", principal="eve") as e,
        a.client.presence("vault", At("1")) as ann,
        b.client.presence("vault", At("2")) as bob,
        e.client.presence("vault", At("3")) as eve,
        e.client.presence("main", At("4")) as aside,
    ):
        await settled()
        assert (seen(ann), seen(bob)) == ({"bob": At("2")}, {"ann": At("1")}), "to read is enough"
        assert (eve.others, eve.connected, aside.connected) == ((), False, True)
        assert isinstance(eve.error, RemoteError) and eve.error.remote_code == "PERMISSION_DENIED"
        walls.inside.remove("bob")
        ann.update(At("secret"))
        await settled()
        assert (ann.others, bob.others, bob.connected) == ((), (), False), "the right is gone, and so is he"
        walls.inside.add("bob")
        await trio.sleep(60)
        assert (seen(ann), seen(bob)) == ({"bob": At("2")}, {"ann": At("secret")})


async def test_a_right_that_is_gone_is_noticed_where_nothing_is_told(world: Any) -> None:
    walls = Walls({"ann", "bob"})
    async with (
        world.open_hub(rules=walls),
        world.open_device("a", principal="ann") as a,
        world.open_device("b", principal="bob") as b,
        a.client.presence("vault", At("1")) as ann,
        b.client.presence("vault", At("2")) as bob,
    ):
        await settled()
        walls.inside.remove("bob")
        await trio.sleep(LEASE_S + 1)
        assert (ann.others, bob.others) == ((), ())


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (At("x" * 1024), "at most 1024 bytes"),
        (object(), "what JSON can say"),
        (At("\ud800"), "what JSON can say"),
        (1j, "what JSON can say"),
        (lambda: None, "what JSON can say"),
    ],
    ids=["large", "an object", "no Unicode", "a complex number", "a function"],
)
async def test_a_state_that_cannot_be_told_is_refused_where_it_is_said(world: Any, state: Any, says: str) -> None:
    async with world.open_hub(), world.open_device("a") as a:
        with pytest.raises(ValidationError, match=says):
            async with a.client.presence("main", state):
                pass
        async with a.client.presence("main", At()) as here:
            if isinstance(state, At):
                with pytest.raises(ValidationError, match=says):
                    here.update(state)
            with pytest.raises(ValidationError, match="says a At, not a str"):
                here.update("text")
            assert here.state == At()
        with pytest.raises(ClosedError, match="presence is closed"):
            here.update(At("2"))
        with pytest.raises(ConfigurationError, match="not the name of a scope"):
            async with a.client.presence("", At()):
                pass


async def test_a_client_that_does_not_sync_is_nowhere(world: Any) -> None:
    async with world.open_hub(), world.open_device("a", plugins=[]) as a:
        with pytest.raises(PluginError, match="does not sync"):
            a.client.presence("main", At())


async def test_whoever_says_what_another_version_means_is_not_shown(world: Any) -> None:
    @dataclass
    class Later:
        card: str
        column: int = 0

    @dataclass
    class Unlike:
        card: list[int]

    async with (
        world.open_hub(),
        world.open_device("a", principal="ann") as a,
        world.open_device("b", principal="bob") as b,
        world.open_device("c", principal="cid") as c,
        a.client.presence("main", At("1")) as ann,
        b.client.presence("main", Later("2", 7)) as bob,
        c.client.presence("main", Unlike([1])) as cid,
    ):
        await settled()
        assert (seen(ann), seen(bob), cid.others) == ({"bob": At("2")}, {"ann": Later("1")}, ())


@dataclass
class Peer:
    """Somebody who is present by hand."""

    hub: Hub
    subject: str
    number: int
    told: list[PresenceChange]
    others: dict[str, Present]
    said: int = 1

    @property
    def session(self) -> bytes:
        return self.number.to_bytes(16, "big")

    async def say(self, state: str | None) -> bool:
        self.said += 1
        service = self.hub.service(Principal(self.subject))
        return (await service.appear(AppearRequest("main", self.session, self.said, state))).known

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        request = PresenceRequest("main", self.session, self.said, "0")
        async with self.hub.service(Principal(self.subject)).presence(request) as changes:
            async for change in changes:
                if change.whole:
                    self.others = {}
                    task_status.started()
                self.told.append(change)
                self.others.update({present.session: present for present in change.here})
                for session in change.gone:
                    self.others.pop(session, None)


@asynccontextmanager
async def crowd(hub: Hub, size: int, subject: str = "s{}") -> AsyncGenerator[list[Peer]]:
    """So many who are present."""
    peers = [Peer(hub, subject.format(number), number, [], {}) for number in range(1, size + 1)]
    async with trio.open_nursery() as nursery:
        for peer in peers:
            await nursery.start(peer.run)
        yield peers
        nursery.cancel_scope.cancel()


async def test_a_crowd_costs_the_hub_no_more_than_its_budget_and_everybody_sees_the_last_word(world: Any) -> None:
    size, seconds = 60, 20
    limits = PresenceLimits(deliveries_per_s=500, changes_per_s=20)
    async with world.open_hub(presence=limits) as hub, crowd(hub, size) as peers:
        await trio.sleep(5)
        before = sum(len(peer.told) for peer in peers)
        for turn in range(10 * seconds):
            for peer in peers:
                assert await peer.say(str(turn))
            await trio.sleep(0.1)
        items = sum(len(peer.told) for peer in peers) - before
        assert items <= limits.deliveries_per_s * seconds, (
            "60 who change ten times a second would be 708,000 changes to tell"
        )
        assert items >= size * 10, "and they are told all the same"
        await trio.sleep(5)
        last = str(10 * seconds - 1)
        assert all({present.state for present in peer.others.values()} == {last} for peer in peers)
        assert all(len(peer.others) == size - 1 for peer in peers)


async def test_a_slow_reader_has_one_entry_of_each_who_is_there(world: Any) -> None:
    async with world.open_hub() as hub, crowd(hub, 3) as peers:
        service = hub.service(Principal("slow"))
        async with service.presence(PresenceRequest("main", b"s" * 16, 1, "{}")) as changes:
            assert len((await anext(changes)).here) == 3
            for turn in range(200):
                for peer in peers:
                    await peer.say(str(turn))
                await trio.sleep(0.1)
            await settled()
            change = await anext(changes)
            assert ([present.state for present in change.here], change.gone) == (["199"] * 3, ())
            with trio.move_on_after(5) as nothing:
                await anext(changes)
            assert nothing.cancelled_caught


async def test_a_change_that_comes_twice_is_told_once(world: Any) -> None:
    """Of two states with one number the first counts: the other one is a late copy, or a lie."""
    async with world.open_hub() as hub, crowd(hub, 2) as (ann, bob):
        await ann.say("here")
        await settled()
        told = len(bob.told)
        service = hub.service(Principal(ann.subject))
        for state in ("here", "elsewhere", None):
            assert (await service.appear(AppearRequest("main", ann.session, ann.said, state))).known
            await settled()
        assert ([other.state for other in bob.others.values()], len(bob.told)) == (["here"], told)


@dataclass
class Asked:
    """Rules that note who is asked about."""

    subjects: list[str]

    def scope_access(self, principal: Principal, scope: str) -> Access:
        self.subjects.append(principal.subject)
        return "write"


async def test_a_right_is_asked_for_once_for_each_thing_that_is_told(world: Any) -> None:
    asked = Asked([])
    async with world.open_hub(rules=asked) as hub, crowd(hub, 1) as (peer,):
        service = hub.service(Principal("ann"))
        async with service.presence(PresenceRequest("main", b"s" * 16, 1, "{}")) as changes:
            await anext(changes)
            for turn in range(1, 5):
                asked.subjects.clear()
                await peer.say(str(turn))
                assert [present.state for present in (await anext(changes)).here] == [str(turn)]
                assert asked.subjects.count("ann") == 1


async def refused(hub: Hub, request: PresenceRequest, subject: str = "ann") -> str:
    with pytest.raises(RemoteError) as error:
        async with hub.service(Principal(subject)).presence(request):
            pass
    return error.value.remote_code


async def test_bounds_are_per_state_scope_principal_and_second(world: Any) -> None:
    limits = PresenceLimits(state_bytes=10, per_scope=4, per_principal=2, changes_per_s=10)
    asked = PresenceRequest("main", b"x" * 16, 1, "{}")
    async with world.open_hub(presence=limits) as hub:
        assert await refused(hub, replace_of(asked, state="x" * 11)) == "TOO_LARGE"
        assert await refused(hub, replace_of(asked, state="\ud800")) == "MALFORMED"
        assert await refused(hub, replace_of(asked, session=b"x")) == "MALFORMED"
        assert await refused(hub, replace_of(asked, number=0)) == "MALFORMED"
        assert await refused(hub, replace_of(asked, scope="")) == "INVALID"
        async with crowd(hub, 2, "ann") as (peer, _):
            assert await refused(hub, asked) == "OVERLOADED", "two of ann's are here"
            async with crowd(hub, 2, "bob{}"):
                assert await refused(hub, asked, "cid") == "OVERLOADED", "four are here"
            for turn in range(19):
                assert await peer.say(str(turn))
            with pytest.raises(RemoteError, match="RATE_LIMITED") as limited:
                for turn in range(2):
                    await peer.say(str(turn))
            assert 0 < limited.value.retry_after_s <= 0.1
            assert await peer.say(None), "whoever leaves may always say so"
        await trio.sleep(limits.lease_s + 1)
        async with hub.service(Principal("ann")).presence(asked) as changes:
            assert (await anext(changes)).here == (), "all of it is free again"


def replace_of(request: PresenceRequest, **changes: Any) -> PresenceRequest:
    return PresenceRequest(**{name: changes.get(name, getattr(request, name)) for name in request.__struct_fields__})


@pytest.mark.parametrize("limits", [{"per_scope": 0}, {"lease_s": -1}, {"state_bytes": True}, {"state_bytes": 5000}])
def test_limits_are_positive_numbers(limits: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        PresenceLimits(**limits)


async def test_nobody_speaks_for_another_even_with_their_session(world: Any) -> None:
    async with world.open_hub() as hub, crowd(hub, 2) as (first, second):
        stolen = replace(first, subject="eve", said=10)
        assert not await stolen.say("mine now")
        assert not await stolen.say(None)
        await settled()
        assert [present.state for present in second.others.values()] == ["0"]
        shown = second.told[0].here[0].session
        assert first.session.hex() not in shown and len(shown) == 16, "others are told another name than the secret one"


async def test_what_comes_late_brings_nobody_back(world: Any) -> None:
    async with world.open_hub() as hub, crowd(hub, 2) as (first, second):
        await first.say("1")
        await first.say("2")
        first.said = 1
        assert await first.say("late"), "it is known, and passed over"
        await settled()
        assert [present.state for present in second.others.values()] == ["2"]
        first.said = 3
        assert await first.say(None)
        first.said = 1  # a call that was on its way for long
        assert not await first.say("late")
        await settled()
        assert second.others == {}


async def test_rooms_that_nobody_is_in_are_gone(world: Any) -> None:
    async with world.open_hub() as hub:
        async with AsyncExitStack() as stack:
            for number in range(50):
                request = PresenceRequest(f"scope {number}", number.to_bytes(16, "big"), 1, "{}")
                service = hub.service(Principal(f"s{number}"))
                await stack.enter_async_context(service.presence(request))
            rooms = hub._core.rooms
            assert len(rooms._rooms) == 50
        await trio.sleep(LEASE_S + 2)
        assert (rooms._rooms, rooms._leases, rooms._of_subject) == ({}, {}, {})
