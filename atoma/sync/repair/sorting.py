"""What becomes of each pending mutation: decided, surely undecided, or doubtful."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from atoma.contracts.mutations import PendingMutation
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
    pending: Iterable[PendingMutation], verdicts: Mapping[int, Verdict], last_mid: int, *, known: bool
) -> Sorted:
    """Sort ``pending``, in ``mid`` order.

    * A verdict with the mutation's own digest settles it. An ack alone does not: it may have been given in a history
      that the hub has lost.
    * From the first verdict with another digest on, the file's mutations are others than those that the hub has decided
      under their numbers: surely undecided. So is everything behind the hub's last mutation, while it knows the client.
    * Anything else was decided once, or may have been, and nobody can tell: doubtful.

    Args:
        pending: Every outbox mutation of the file.
        verdicts: What the hub keeps under this client's id.
        last_mid: Last mutation of this client that the hub has decided.
        known: Whether the hub knows the client at all.
    """
    found = Sorted()
    diverged = False
    for mutation in pending:
        verdict = verdicts.get(mutation.mid)
        if verdict is not None and verdict.digest == mutation.digest and not diverged:
            found.settled.append((mutation, verdict.outcome))
        else:
            diverged = diverged or verdict is not None
            found.again.append((mutation, not diverged and not (known and mutation.mid > last_mid)))
    return found
