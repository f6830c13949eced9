"""What a hub that was restored has to come back to: what the devices that return have seen, each of them all or a part."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from atoma.testing.simulation.facts import Image, Key
from atoma.testing.simulation.lineage import Lineage, Moment, State
from atoma.testing.simulation.replicas import Replica
from atoma.testing.simulation.snapshots import Place, Snapshot
from atoma.testing.simulation.stores import RULES, sees


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A device's view of one scope, at its place in the history that was lost.

    Attributes:
        user: Whose device it is.
        place: Where it is.
        rows: What it has there.
        whole: Whether that is every row that it may see.
        changed: The rows that were changed on the way there, with when they last were.
    """

    user: str
    place: Place
    rows: State
    whole: bool
    changed: dict[Key, int]

    @staticmethod
    def by(replica: Replica, now: Snapshot, scope: str, lineage: Lineage) -> Witnessed:
        """The view of ``replica``."""
        place, changed = now.places[scope], dict[Key, int]()
        for moment in lineage.back(scope, place.hash):
            for key in moment.changed:
                changed.setdefault(key, moment.seq)
        rows = replica.seen(now, scope, lineage.rows(scope, place.hash))
        return Witnessed(replica.user, place, rows, not now.marks.get(scope), changed)


@dataclass(frozen=True, slots=True)
class Best:
    """What a scope has to be after everybody has come back.

    Attributes:
        rows: Its rows.
        others: What rows of a store with a rule may be as well. Who has seen the last of one may not write over what is there,
            where they may not see that: then it depends on who comes first.
    """

    rows: State
    others: dict[Key, list[Image | None]]

    def allows(self, key: Key, image: Image | None) -> bool:
        """Whether the row may be like that."""
        return image == self.rows.get(key) or image in self.others.get(key, ())


def best_of(kept: Moment | None, head: int, witnesses: Sequence[Witnessed]) -> Best:
    """What devices bring back to a hub that has kept its history up to ``head``.

    Who sees every row says by what they have not that it is gone; who sees a part of them brings rows, and never their
    absence. So those of a store with a row rule are only ever brought back.
    """
    before: State = {} if kept is None else kept.rows
    further = [one for one in witnesses if one.place.seq > head]
    whole = max((one for one in further if one.whole), key=lambda one: one.place.seq, default=None)
    rows = {key: image for key, image in before.items() if whole is None or key[0] in RULES}
    if whole is not None:
        rows.update((key, image) for key, image in whole.rows.items() if key[0] not in RULES)
    others: dict[Key, list[Image | None]] = {}
    for one in sorted(further, key=lambda one: one.place.seq):
        for key, image in one.rows.items():
            ruled = key[0] in RULES
            if one.changed.get(key, 0) <= head or not (ruled or (_sees_further(one, whole) and not one.whole)):
                continue
            if ruled:
                others.setdefault(key, [before.get(key)]).append(image)
            rows[key] = image
    return Best(
        rows, {key: images for key, images in others.items() if not _last_word(key, rows[key], images, further)}
    )


def _sees_further(one: Witnessed, whole: Witnessed | None) -> bool:
    return whole is None or one.place.seq > whole.place.seq


def _last_word(key: Key, image: Image, images: Collection[Image | None], further: Sequence[Witnessed]) -> bool:
    """Whether somebody who has the row like that may write over whatever else is brought, or was there."""
    last = max(one.place.seq for one in further if one.rows.get(key) == image)
    users = {one.user for one in further if one.place.seq == last and one.rows.get(key) == image}
    return any(all(other is None or sees(user, key, other) for other in images) for user in users)
