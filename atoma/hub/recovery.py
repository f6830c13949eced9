"""Offers: what devices have seen of a history that the hub has lost, taken back in as state.

A restored hub goes back to the *fork*. Devices that come back offer their rows as they were at their own position of the
lost history. The one that has seen most wins, in whichever order they come, and nothing that was written since the fork is
ever overwritten; texts that merge are joined with it. Each row keeps the position that it was offered from; the last message of a device says that everything up
to its position is in, so that what older witnesses bring later, or have brought before, does not count.

A device that may see a part of a store only tells nothing by its silence: a row that it does not have may have been deleted, or
have left what it sees. So of a store with a row rule rows are brought back, and never their absence.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from atoma.contracts.boots import BootedPlace, boots_up_to
from atoma.contracts.codec import encode
from atoma.contracts.mutations import PROOF_BYTES, Op, Recovers
from atoma.contracts.sync import Conflict, Cursor, Place
from atoma.contracts.values import RowKey
from atoma.hub.admission import CheckedMutation, Refusal
from atoma.hub.workspace import Workspace, plan_of_hub
from atoma.mutations import replay
from atoma.ports.hub import Facts, Need, Trace, WritePlan
from atoma.ports.hub_rows import RowFact
from atoma.schema.kinds import INT64_MAX


def proof_of(key: bytes, scope: str, seq: int, lineage: bytes, boots: bytes = b"") -> bytes:
    """Proves that a hub with ``key``, which is in its backups, has been at this place, and by which ``boots`` it has come there.

    The epoch is not in it: the lineage hash says which history is meant, and a device keeps its place over a new epoch.
    """
    place = ("place", scope, seq, lineage, boots) if boots else ("place", scope, seq, lineage)
    return hmac.new(key, encode(place), hashlib.sha256).digest()[:PROOF_BYTES] + boots


def prove(key: bytes, scope: str, cursor: Cursor, boots: bytes) -> bytes:
    """The proof for a page that ends at ``cursor``, of a scope that ``boots`` have written; none for the beginning."""
    return proof_of(key, scope, cursor.seq, cursor.hash, boots_up_to(boots, cursor.seq)) if cursor.seq else b""


def witness_of(place: Place, key: bytes) -> BootedPlace:
    """Where a device is, and by which boots of this hub it has come there; by none where nothing proves it."""
    cursor = place.cursor
    proof = proof_of(key, place.scope, cursor.seq, cursor.hash, place.proof[PROOF_BYTES:])
    proven = hmac.compare_digest(place.proof, proof)
    return BootedPlace(cursor.seq, place.proof[PROOF_BYTES:] if proven else b"")


def check_offer(admitted: CheckedMutation, key: bytes) -> None:
    """Refuse an offer that is none: its position decides who wins, so it has to be proved.

    Raises:
        Refusal: ``INVALID``.
    """
    body, offer = admitted.body, admitted.body.recovers
    if offer is None:
        return
    unproven = not offer.proof and not offer.last  # whether that counts is the operator's word
    proof = proof_of(key, body.scope, offer.seq, offer.hash, offer.witness.boots)
    if not unproven and not hmac.compare_digest(offer.proof, proof):
        raise Refusal("INVALID", "this hub has never been at the position that the offer is from")
    rows = {(op.store, op.id) for op in admitted.ops if op.kind in ("replace", "delete")}
    if len(rows) < len(admitted.ops) or offer.last == bool(rows):
        raise Refusal("INVALID", "an offer is rows, each of them once, or says that it was the last one")


def take_offer(offer: Recovers, ops: Sequence[Op], facts: Facts, work: Workspace) -> tuple[RowKey, ...]:
    """Put the offered rows into ``work``, but for those that a device has brought which had seen more; those that count.

    One whose texts are joined with what was written since the fork does not: nobody who brings the lost history knows that.
    Several rows come together where they have exchanged unique values. Each counts by itself; when one is refused, all are.

    Raises:
        Refusal: As in :func:`_take_row`.
    """
    return tuple([(op.store, op.id) for op in ops if _take_row(offer, op, facts, work)])


def _take_row(offer: Recovers, op: Op, facts: Facts, work: Workspace) -> bool:
    """Put the offered row into ``work``; False when a device that has seen more was here before, or it was written since.

    Raises:
        Refusal: ``HUB_LOST_DATA``: somebody has written the row since the fork, or has brought another one back and nobody
            can tell which of them is later. ``INVALID``: nothing proves the offer, and the operator does not take it so.
            ``DENIED``: a rule about rows says no, to the row that is there or to the one that is offered.
    """
    key = (op.store, op.id)
    if not offer.proof and not facts.unproven:
        raise Refusal("INVALID", "nothing proves that this hub has ever been where the offer is from")
    if op.kind == "delete" and work.is_part(key):
        return False
    comparable = is_of_one_history(offer, facts)
    fact, left = work.fact(key), facts.traces.get(key) if comparable else None
    trace = _taken(left)
    image = replay(op, None)
    written = _is_written(fact, trace, facts)
    if written or not offer.proof or (trace is not None and not trace.position):
        # else who offers it has seen what is there: it was made of that, or begun afresh since
        image = work.with_texts(key, image)
    if not offer.proof:
        if work.is_same(key, image):
            return trace is None and not written
        if trace is not None or facts.recovered_until:
            raise _in_the_way(
                op, fact, "was brought back otherwise by another device, and nobody can tell which is later", work
            )
    superseded = trace is not None and trace.position > offer.position
    told = comparable and bool(offer.proof) and not work.is_part(key) and _is_told(offer, facts, left)
    if superseded or (told and not _counts_late(op, facts, trace, fact)):
        return False
    in_texts = work.differs_in_texts(key, image)
    if written and not in_texts and not work.is_same(key, image):
        raise _in_the_way(op, fact, "was lost by the hub, and has been written anew since", work)
    work.put(key, image)
    return not written or not comparable


def is_of_one_history(offer: Recovers, facts: Facts) -> bool:
    """Whether positions in the epoch of ``offer`` can be compared: it has ended, so one history alone has gone on under its name.

    A hub that was restored without an end of its epoch goes on under the same name, and may be so again. The positions of what
    is lost each time say nothing of each other, so what another device has brought back is as good as written. Where two have gone
    on so, and the file knows of neither, the facts about an offer of the second one have no traces of the first.
    """
    return offer.epoch != facts.epoch


def _is_told(offer: Recovers, facts: Facts, trace: Trace | None) -> bool:
    """Whether a device that has seen as much has said by now that it has offered everything, this row or its absence with it.

    From the very same place it counts as said only where the row was offered: another one was held back there. A row of which that
    device's offer was refused is not at the hub, so nothing is said of it.
    """
    if facts.recovered_until == offer.seq:
        return trace is not None and trace.position >= offer.seq
    return facts.recovered_until > offer.seq and (trace is None or trace.refused < facts.recovered_until)


def _taken(trace: Trace | None) -> Trace | None:
    """The trace of an offer that was taken."""
    return trace if trace is not None and trace.is_taken else None


def _is_written(fact: RowFact, trace: Trace | None, facts: Facts) -> bool:
    """Whether somebody may have written the row since the fork, other than by an offer."""
    return fact.seq != trace.seq if trace is not None else fact.seq > facts.since or _is_forgotten(fact, facts)


def _is_forgotten(fact: RowFact, facts: Facts) -> bool:
    """Whether the row may have been written since the fork, and deleted, and the log no longer tells."""
    return fact.image is None and not fact.seq and facts.since < facts.scope.floor


def _counts_late(op: Op, facts: Facts, trace: Trace | None, fact: RowFact) -> bool:
    """Whether an offer counts although a device that has seen more was here, and did not name the row: it saw it deleted.

    The deletion itself may have been held back until it was allowed. While it is, the row is one that the hub still has, and
    it should be as it was last seen.
    """
    if op.kind == "delete":
        return True
    still_there = fact.image is not None and fact.seq <= facts.since if trace is None else trace.survivor
    return still_there and not facts.deletes


def _in_the_way(op: Op, fact: RowFact, what: str, work: Workspace) -> Refusal:
    current: dict[str, object] | None = None if fact.image is None else {**work.pack(op.store, fact.image)}
    conflict = Conflict(op.store, op.id, rule="offer", current=current, current_seq=fact.seq)
    return Refusal("HUB_LOST_DATA", f"{op.store} row {op.id!r} {what}", conflict=conflict)


def withdrawn(position: int, facts: Facts, parts: Collection[str]) -> Iterator[RowKey]:
    """Rows that older witnesses have brought in and one that brought everything up to ``position`` has not: it saw them go.

    Those of ``parts``, the stores with a row rule, are not among them; nor are those that the hub had itself, while deletions
    are held back. Of what nothing proves nobody can tell whether it came before.
    """
    for key, trace in _earlier(position, facts, parts):
        if (facts.deletes or not trace.survivor) and facts.rows[key].seq > facts.since:
            yield key


def refused(offer: Recovers, ops: Sequence[Op], facts: Facts) -> Iterator[RowKey]:
    """Rows of the refused ``offer`` that older witnesses may bring in, or have: who made it did not see them go.

    One that was written since the fork is not among them: it is the newest, and older offers of it need not be told to anybody.
    """
    if not offer.proof or not is_of_one_history(offer, facts):
        return
    for op in ops:
        key = op.store, op.id
        if op.kind != "delete" and not _is_written(facts.rows[key], _taken(facts.traces.get(key)), facts):
            yield key


def shared(position: int, facts: Facts, parts: Collection[str]) -> tuple[RowKey, ...]:
    """Rows that older witnesses have brought in and one that has seen ``position`` had no need to offer.

    It is as the hub has had it before the fork. So by its silence the better witness says that this is how it has seen it.
    """
    return tuple(key for key, _ in _earlier(position, facts, parts) if facts.rows[key].seq <= facts.since)


def _earlier(position: int, facts: Facts, parts: Collection[str]) -> Iterator[tuple[RowKey, Trace]]:
    """Rows that stand as they were offered from before ``position``, but for those of ``parts``."""
    for key, trace in facts.traces.items():
        fact = facts.rows.get(key)
        if (
            key[0] not in parts
            and 0 < trace.position < position
            and trace.refused < position
            and fact is not None
            and fact.image is not None
            and fact.seq == trace.seq
        ):
            yield key, trace


@dataclass(frozen=True, slots=True)
class WithdrawDecision:
    """A decision that carries out what was held back until now: it deletes rows that the best witness has seen deleted.

    Attributes:
        scope: The scope.
        epoch: The epoch of which a part was lost.
        parts: Stores with a row rule: a device may see a part of each only.
    """

    scope: str
    epoch: bytes
    parts: Collection[str]

    @property
    def need(self) -> Need:
        """What offers have left on every row of the scope."""
        everything = Recovers(self.epoch, INT64_MAX, b"", b"hub", last=True)
        return Need(scope=self.scope, recovers=everything)

    def decide(self, facts: Facts) -> WritePlan:
        """One transaction, or nothing to do."""
        if not facts.deletes:
            return WritePlan()
        work = Workspace(facts.rows, {})
        for key in withdrawn(facts.recovered_until, facts, self.parts):
            work.put(key, None)
        return plan_of_hub(facts, work)
