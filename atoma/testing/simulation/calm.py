"""I22: a hub is restored with nothing else going on; it comes back to what the best returning device had seen.

No frame is lost and nobody crashes. Devices come one at a time, write, sync, and go; the hub goes back to a backup; some
devices return, in any order.
"""

from __future__ import annotations

import trio

from atoma.testing.simulation.bestof import Best, Witnessed, best_of
from atoma.testing.simulation.report import Violation
from atoma.testing.simulation.restoring import HubCopy
from atoma.testing.simulation.stores import RULES, SCOPES, UNIQUE_COLUMN
from atoma.testing.simulation.world import LOOK_S, World

ROUNDS = 3
VISIT_S = 300.0


class CalmWorld(World):
    """A world in which one thing happens."""

    async def main(self) -> None:
        """Write, restore, return, compare."""
        self.weather.settle()
        for person in self.people.values():
            person.left = 0  # each writes at its visits
        with self.over:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._live, self.hub_life, self.run_hub)
                for life in self.clients:
                    self.network.partition(life.name)
                    nursery.start_soon(self._life_of, life, nursery)
                await trio.sleep(LOOK_S)
                await self._story()
                nursery.cancel_scope.cancel()
        self.virtual_s = trio.current_time()

    async def _story(self) -> None:
        assert self.disasters is not None
        dice = self.dice
        await self._visits(dice.randint(2, 8))
        backup = self.disasters.back_up()
        await self._visits(dice.randint(1, 8))
        back = dice.sample(self.sites, dice.randint(1, len(self.sites)))
        await self._end_what_is_pending(back)
        wanted, refused = self._best(backup, back), self._refused(back)
        found_out = dice.random() < self.disasters.restores.found_out
        self.disasters.restore_hub(backup, found_out=found_out)
        await trio.sleep(2 * LOOK_S)
        while self.hub is None:  # noqa: ASYNC110 - virtual time
            await trio.sleep(LOOK_S)
        await self._return(back)
        self._compare(wanted, backup, held_back=found_out)
        for ended in await self.hub.epochs():
            await self.hub.allow_deletes(ended.epoch)
        await self._return(back)
        self._compare(wanted, backup, held_back=False)
        if self._refused(back) != refused:
            self.broken(Violation("I22", "the end", "a calm restore has left something in an inbox"))
        self.counts["calm restores"] += 1
        self.counts["calm restores, all back"] += len(back) == len(self.sites)

    async def _visits(self, count: int) -> None:
        """Devices come, write a little, sync, and go."""
        for _ in range(count):
            site = self.dice.choice(self.sites)
            person = self.people[site]
            person.left = self.dice.randint(0, 4)
            if person.client is not None:
                await person.work(person.client)
            await self._visit(site)

    async def _visit(self, site: str) -> None:
        self.network.heal(site)
        person = self.people[site]
        if person.client is not None:
            person.client.sync.poke()
        with trio.move_on_after(VISIT_S) as patience:
            while self.replicas[site].unfinished():  # noqa: ASYNC110 - virtual time
                await trio.sleep(LOOK_S)
        if patience.cancelled_caught:
            self.broken(Violation("I15", site, f"not done after {VISIT_S:g} s: {self.replicas[site].unfinished()}"))
        await trio.sleep(LOOK_S)
        self.network.partition(site)

    async def _end_what_is_pending(self, back: list[str]) -> None:
        """Nothing may be pending: what has not reached the hub is not part of what it lost."""
        for site in back:
            now = self.replicas[site].now
            if now is None or now.outbox:
                await self._visit(site)

    async def _return(self, back: list[str]) -> None:
        for _ in range(ROUNDS):
            for site in self.dice.sample(back, len(back)):
                await self._visit(site)

    def _best(self, backup: HubCopy, back: list[str]) -> dict[str, Best]:
        """What the devices that come back have seen of each scope, where they have seen more than the backup."""
        lineage, found = self.history.lineage, dict[str, Best]()
        for scope in SCOPES:
            witnesses = [
                Witnessed.by(replica, replica.now, scope, lineage)
                for site in back
                if (replica := self.replicas[site]).now is not None
            ]
            kept = backup.branch.hashes[scope]
            found[scope] = best_of(lineage.at(scope, kept[-1]), len(kept) - 1, witnesses)
        return found

    def _refused(self, back: list[str]) -> int:
        """What lies in inboxes, but for what one device alone cannot bring back."""
        return sum(
            not self._in_part(store)
            for site in back
            if (replica := self.replicas[site]).now is not None
            for _, (store, _) in replica.now.inbox
        )

    def _in_part(self, store: str) -> bool:
        """Whether a device may have seen a row of ``store`` and not another one that is in its way."""
        return store in RULES or (bool(self.swarm.extras.parts) and store in UNIQUE_COLUMN)

    def _compare(self, wanted: dict[str, Best], backup: HubCopy, *, held_back: bool) -> None:
        """The hub is as it was seen last; rows that it has kept may still be there while deletions are held back."""
        for scope in SCOPES:
            found, kept = self.history.rows(scope), backup.branch.states[scope][-1]
            risen = {
                key for key in found.keys() - wanted[scope].rows.keys() if not wanted[scope].allows(key, found[key])
            }
            differs = [key for key in wanted[scope].rows if not wanted[scope].allows(key, found.get(key))]
            if (held_back and risen) or self.swarm.extras.parts:  # another row may have the unique values of one
                differs = [key for key in differs if key[0] not in UNIQUE_COLUMN]
            if differs or (risen - kept.keys() if held_back else risen):
                what = f"{differs} are not as they were seen, {sorted(risen)} have risen"
                self.broken(Violation("I22", f"hub {scope}", what))
