"""Bugs to plant: each changes one small decision of the product for the length of a run.

A checker that never finds anything may be blind. These are the mistakes that systems of this kind have been seen to
make; every one of them has to be found. The product knows nothing of this module.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from atoma.errors import ConfigurationError
from atoma.testing.simulation import _mistakes as mistakes
from atoma.testing.simulation.encounters import Kind
from atoma.testing.simulation.extras import PLAIN, Extras


@dataclass(frozen=True, slots=True)
class Patch:
    """One function or constant to replace.

    Attributes:
        owner: ``"module"`` or ``"module:Class"``.
        name: Attribute of it.
        make: Makes the replacement from what is there.
    """

    owner: str
    name: str
    make: Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Bug:
    """A mistake.

    Attributes:
        what: In words.
        patches: What makes it.
        kind: What a run has to be about for it to matter.
        extras: What it has to have beside plain writes.
    """

    what: str
    patches: Sequence[Patch]
    kind: Kind = "steady"
    extras: Extras = PLAIN


def _owner(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    return getattr(found, name) if name else found


@contextmanager
def plant(name: str) -> Generator[None]:
    """Have the bug ``name`` inside the block, none for ``""``.

    Raises:
        ConfigurationError: There is no such bug, or the product no longer has what it changes.
    """
    if name and name not in PLANTED:
        raise ConfigurationError(f"no bug is called {name!r}; there are: {', '.join(PLANTED)}")
    with ExitStack() as stack:
        for patch in PLANTED[name].patches if name else ():
            owner = _owner(patch.owner)
            if not hasattr(owner, patch.name):
                raise ConfigurationError(f"bug {name!r}: {patch.owner} has no {patch.name!r} any more")
            original = getattr(owner, patch.name)
            setattr(owner, patch.name, patch.make(original))
            stack.callback(setattr, owner, patch.name, original)
        yield


PLANTED: dict[str, Bug] = {
    "event-outbox": Bug(
        "the outbox is fed by an event after the commit",
        [
            Patch("atoma.sync.outbox:OutboxNode", "stage", mistakes.mirror.stage),
            Patch("atoma.sync.plugin:Sync", "open", mistakes.mirror.open),
        ],
    ),
    "ack-drops-overlay": Bug(
        "a push ack takes the mutation out of the overlay", [Patch("atoma.sync.settle", "is_covered", mistakes.always)]
    ),
    "hint-moves-cursor": Bug(
        "a hint moves the cursor", [Patch("atoma.sync.notify:NotifyLane", "heed", mistakes.moved_by_hint)]
    ),
    "no-dedupe": Bug(
        "the hub decides a repeated mutation again",
        [
            Patch("atoma.hub.pushing:PushDecision", "decide", mistakes.no_dedupe),
            Patch(
                "atoma_stores.sql.hub.effects",
                "_insert",
                mistakes.over_an_outcome,
            ),
        ],
    ),
    "cursor-before-page": Bug(
        "the cursor moves in a transaction before the page's",
        [Patch("atoma.sync.pull:PullLane", "_commit", mistakes.cursor_first)],
    ),
    "hub-accepts-gaps": Bug(
        "the hub skips missing mutations", [Patch("atoma.hub.pushing:PushDecision", "decide", mistakes.gaps)]
    ),
    "row-version-as-base": Bug(
        "the row's version is sent as what the user had seen",
        [Patch("atoma.sync.outbox", "base_position", mistakes.row_version)],
    ),
    "rebase-skipped": Bug(
        "pending operations are not replayed on a new base",
        [Patch("atoma.runtime.applying", "rebase_rows", mistakes.nothing)],
    ),
    "swap-not-rebased": Bug(
        "pending operations are not replayed on a snapshot",
        [Patch("atoma.sync.snapshot", "_swap", mistakes.not_rebased)],
    ),
    "half-a-tail": Bug(
        "a snapshot is swapped in before it is caught up",
        [Patch("atoma.sync.staging", "apply_tail_page", mistakes.half_a_tail)],
    ),
    "inbox-forgotten": Bug(
        "what the hub refused is dropped", [Patch("atoma.sync.settle", "keep_refused", mistakes.nothing)]
    ),
    "dependants-unlinked": Bug(
        "operations do not name what they build on", [Patch("atoma.sync.outbox", "_linked", mistakes.unlinked)]
    ),
    "dependants-accepted": Bug(
        "the hub takes what builds on something rejected",
        [Patch("atoma.hub.pushing:PushDecision", "_check_dependencies", mistakes.nothing)],
    ),
    "own-changes-foreign": Bug(
        "a client's own changes count as somebody else's",
        [Patch("atoma.hub.pushing:PushDecision", "need", mistakes.all_foreign)],
    ),
    "own-change-hides": Bug(
        "below the floor, a client's own last change hides somebody else's",
        [Patch("atoma.hub.conflicts", "foreign", mistakes.own_change_hides)],
    ),
    "server-wins-lost": Bug(
        "what arrives last wins under server_wins too",
        [Patch("atoma.hub.conflicts:_Merge", "_settled", mistakes.always_latest)],
    ),
    "floor-ignored": Bug(
        "the hub continues cursors whose log is gone", [Patch("atoma.hub.service", "check_cursor", mistakes.nothing)]
    ),
    "restart-loses-tail": Bug(
        "opening a file takes back the last write",
        [Patch("atoma_stores.sqlite.engine", "roll_back_volatile", mistakes.lose_last)],
    ),
    "handles-forgotten": Bug(
        "the handle of a write never gets its verdict",
        [Patch("atoma_stores.sqlite._receipts:Receipts", "settle", mistakes.nothing)],
    ),
    "live-misses-pages": Bug(
        "live queries are not notified of what a page has changed",
        [Patch("atoma_stores.sqlite._units:EngineTx", "finish", mistakes.own_changes_only)],
    ),
    "doubt-ignored": Bug(
        "what may have been decided is decided like anything else",
        [Patch("atoma.hub.pushing", "decide_doubtful", mistakes.without_doubt)],
        "restored",
    ),
    "blind-offers": Bug(
        "an offer is taken whatever was written since",
        [Patch("atoma.hub.pushing", "take_offer", mistakes.blind_offer)],
        "restored",
    ),
    "first-offer-wins": Bug(
        "the first device to come back is believed",
        [Patch("atoma.hub.pushing", "take_offer", mistakes.first_offer)],
        "calm",
    ),
    "trades-offered-alone": Bug(
        "rows that have exchanged unique values are offered one by one",
        [Patch("atoma.sync.repair.offers", "units", mistakes.each_alone)],
        "calm",
        extras=Extras(trades=0.4),
    ),
    "sent-not-noted": Bug(
        "what is about to be sent is not noted, and may still be discarded",
        [Patch("atoma.sync.push:Sending", "stage", mistakes.unnoted)],
        extras=Extras(minds=0.4),
    ),
    "dependants-not-held": Bug(
        "what builds on a held or discarded write is left where it is",
        [Patch("atoma.sync.unsent:_Waiting", "with_dependents", mistakes.only_the_chosen)],
        extras=Extras(minds=0.4),
    ),
    "ranks-not-chained": Bug(
        "digests behind a discarded write are left as they were",
        [Patch("atoma.sync.outbox:Chain", "append_again", mistakes.unchained)],
        extras=Extras(minds=0.4),
    ),
    "trail-only": Bug(
        "where an epoch ended is not looked up", [Patch("atoma.hub.service", "fork", mistakes.only_the_trail)], "calm"
    ),
    "lies-believed": Bug(
        "an offer counts from wherever it says that it is",
        [Patch("atoma.hub.pushing", "check_offer", mistakes.nothing)],
        extras=Extras(lies=1.0),
    ),
    "lost-rows-dropped": Bug(
        "a repair neither offers nor keeps what the hub has lost",
        [Patch("atoma.sync.repair.rebirth", "_offer", mistakes.nothing_offered)],
        "restored",
    ),
    "unproven-offered": Bug(
        "a repair offers what nothing proves, and nobody has said that it may",
        [Patch("atoma.sync.repair.offers", "_why_not", mistakes.as_if_proved)],
        "restored",
        extras=Extras(downgrades=0.3),
    ),
    "repair-untold": Bug(
        "a repair leaves no report",
        [Patch("atoma_stores.sqlite._inbox:Inbox", "note_repair", mistakes.nothing)],
        "restored",
    ),
    "origins-ignored": Bug(
        "a mutation is not looked up under its first name",
        [Patch("atoma_stores.sql.hub.state:State", "_named", mistakes.not_looked_up)],
        "restored",
    ),
    "base-not-capped": Bug(
        "what was seen of a lost history counts in this one",
        [Patch("atoma.sync.repair.rebirth", "capped", mistakes.not_capped)],
        "restored",
    ),
    "held-not-restated": Bug(
        "a repair leaves what is held in terms of the old numbers and of the lost history",
        [Patch("atoma.sync.repair.rebirth:_Numbering", "keep", mistakes.as_before)],
        "restored",
        extras=Extras(minds=0.4),
    ),
    "held-given-up": Bug(
        "a repair gives up what is held",
        [Patch("atoma.sync.repair.rebirth:_Numbering", "keep", mistakes.given_up)],
        "restored",
        extras=Extras(minds=0.4),
    ),
    "late-pages-taken": Bug(
        "a page that came late is taken in once more",
        [
            Patch("atoma.sync.staging", "move_cursor", mistakes.wherever_it_is),
            Patch("atoma.sync.pull:PullLane", "_take", mistakes.and_the_one_before),
        ],
    ),
    "snapshot-beside-the-old": Bug(
        "a snapshot is swapped in beside the rows of the state before",
        [Patch("atoma_stores.sqlite._scopes:Scopes", "_drop_unstaged", mistakes.nothing)],
    ),
    "snapshot-takes-outbox": Bug(
        "with a snapshot goes what is first in the outbox",
        [Patch("atoma.sync.snapshot", "_swap", mistakes.with_a_mutation)],
    ),
    "added-twice": Bug(
        "the hub adds twice what is to be added once",
        [Patch("atoma.hub.conflicts", "replay", mistakes.added_twice)],
        extras=Extras(increments=0.4),
    ),
    "doubt-added": Bug(
        "what may have been added is added like anything else",
        [Patch("atoma.hub.conflicts", "counts", mistakes.never)],
        "restored",
        extras=Extras(increments=0.4),
    ),
    "brought-back-and-added": Bug(
        "what was added in a lost history is added to what was brought back from it",
        [Patch("atoma_stores.sql.hub.state:State", "_brought", mistakes.none_brought)],
        "restored",
        extras=Extras(increments=0.4),
    ),
    "rules-passed-over": Bug(
        "pages hold rows that a rule keeps from whoever pulls",
        [Patch("atoma.hub.pulling", "_sees", mistakes.always)],
        extras=Extras(secrets=0.4),
    ),
    "others-rows-written": Bug(
        "a rule about rows is not asked about those that are written",
        [Patch("atoma.hub.workspace:Workspace", "_check", mistakes.nothing)],
        extras=Extras(secrets=0.4),
    ),
    "full-is-normal": Bug(
        "nothing waits for the disk",
        [Patch("atoma_stores.sqlite._writer:Writer", "_begin", mistakes.never_full)],
        extras=Extras(disks=0.3),
    ),
    "silence-of-a-part": Bug(
        "who has a part of a scope says, by what they have not, that it is gone",
        [Patch("atoma.sync.repair.offers", "marked", mistakes.unmarked)],
        "calm",
        extras=Extras(parts=1.0),
    ),
    "silence-under-rules": Bug(
        "who may see some of the rows of a store says, by what they have not, that it is gone",
        [Patch("atoma.hub.workspace:Workspace", "is_part", mistakes.never)],
        "calm",
        extras=Extras(secrets=0.4),
    ),
    "leaving-untold": Bug(
        "a page does not tell that a row has left the part that is taken",
        [Patch("atoma.hub.pulling", "_seen", mistakes.leaving_untold)],
        extras=Extras(parts=1.0),
    ),
    "deletes-ignored": Bug(
        "deletions in pages are passed over",
        [Patch(f"atoma.sync.{module}", "changed_rows", mistakes.no_deletes) for module in ("page", "snapshot")],
    ),
}
"""The bugs by name."""
