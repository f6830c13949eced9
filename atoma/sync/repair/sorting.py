"""What becomes of each pending mutation: decided, surely undecided, or doubtful."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from atoma.contracts.overlay import PendingMutation
from atoma.contracts.sync import Outcome, Verdict


@dataclass(slots=True)
class Sorted:
    """The outbox, sorted.

    Attributes:
        settled: Decided at the hub, with the outcome.
        again: To be sent again under a new number, in order; True for those that may have been decided before.
    """

    settled: list[tuple[PendingMutation, Outcome]] = field(default_factory=list[tuple[PendingMutation, Outcome]])
    again: list[tuple[PendingMutation, bool]] = field(default_factory=list[tuple[PendingMutation, bool]])


def sort_outbox(
    pending: Iterable[PendingMutation],
    verdicts: Mapping[int, Verdict],
    last_mid: int,
    *,
    known: bool,
    moved: Collection[str] = (),
) -> Sorted:
    """Sort ``pending``, in ``mid`` order.

    * A verdict with the mutation's own digest settles it. An ack alone does not: it may have been given in a history
      that the hub has lost.
    * From the first verdict with another digest on, the file's mutations are others than those that the hub has decided
      under their numbers: surely undecided. So is everything behind the hub's last mutation, while it knows the client.
    * What was decided under an earlier identity waits for its page only; in a scope whose history may be another one by
      now, nobody can tell whether that page will ever come.
    * Anything else was decided once, or may have been, and nobody can tell: doubtful.

    Args:
        pending: Every outbox mutation of the file.
        verdicts: What the hub keeps under this client's id.
        last_mid: Last mutation of this client that the hub has decided.
        known: Whether the hub knows the client at all.
        moved: Scopes whose history at the hub may be another one than that of earlier acks.
    """
    found = Sorted()
    diverged = False
    for mutation in pending:
        verdict = verdicts.get(mutation.mid)
        if mutation.mid <= 0 and mutation.scope in moved:
            found.again.append((mutation, True))
        elif mutation.mid <= 0:
            found.settled.append((mutation, Outcome(mutation.mid, "applied", mutation.scope, mutation.ack_seq)))
        elif verdict is not None and verdict.digest == mutation.digest and not diverged:
            found.settled.append((mutation, verdict.outcome))
        else:
            diverged = diverged or verdict is not None
            found.again.append((mutation, not diverged and not (known and mutation.mid > last_mid)))
    return found
