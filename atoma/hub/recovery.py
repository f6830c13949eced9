"""Offers: what devices have seen of a history that the hub has lost, taken back in as state.

A restored hub goes back to the *fork*. Devices that come back offer their rows as they were at their own position of the
lost history. The one that has seen most wins, in whichever order they come, and nothing that was written since the fork is
ever overwritten. Each row keeps the position that it was offered from; the last message of a device says that everything up
to its position is in, so that what older witnesses bring later, or have brought before, does not count.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

from atoma.contracts.codec import encode
from atoma.contracts.sync import Conflict, Cursor, MutationBody, Recovers
from atoma.contracts.values import RowImage
from atoma.hub.admission import CheckedMutation, CheckedOp, Refusal
from atoma.hub.workspace import Workspace
from atoma.ports.hub import Facts, RowKey

PROOF_BYTES = 16


def proof_of(key: bytes, scope: str, seq: int, lineage: bytes) -> bytes:
    """Proves that a hub with ``key``, which is in its backups, has been at this place.

    The epoch is not in it: the lineage hash says which history is meant, and a device keeps its place over a new epoch.
    """
    return hmac.new(key, encode(("place", scope, seq, lineage)), hashlib.sha256).digest()[:PROOF_BYTES]


def prove(key: bytes, scope: str, cursor: Cursor) -> bytes:
    """The proof for a page that ends at ``cursor``; none for the beginning."""
    return proof_of(key, scope, cursor.seq, cursor.hash) if cursor.seq else b""


def check_offer(admitted: CheckedMutation, key: bytes) -> None:
    """Refuse an offer that is none: its position decides who wins, so it has to be proved.

    Raises:
        Refusal: ``INVALID``.
    """
    body, offer = admitted.body, admitted.body.recovers
    if offer is None:
        return
    if not hmac.compare_digest(offer.proof, proof_of(key, body.scope, offer.seq, offer.hash)):
        raise Refusal("INVALID", "this hub has never been at the position that the offer is from")
    kinds = [op.kind for op in admitted.ops]
    if kinds not in ([], ["replace"], ["delete"]) or offer.last == bool(kinds):
        raise Refusal("INVALID", "an offer is one row, or says that it was the last one")


def take_offer(body: MutationBody, offer: Recovers, op: CheckedOp, facts: Facts, work: Workspace) -> bool:
    """Put the offered row into ``work``; False when a device that has seen more was here before.

    Raises:
        Refusal: ``HUB_LOST_DATA``: somebody has written the row since the fork.
    """
    key = (op.store.name, op.id)
    fact, trace = work.fact(key), facts.traces.get(key)
    image: RowImage | None = op.full if op.kind == "replace" else None
    late = op.kind == "delete" and facts.recovered_until == offer.seq  # it was held back until it was allowed
    if facts.recovered_until >= offer.seq and not late:
        return False
    written = fact.seq != trace.seq if trace is not None else fact.seq > facts.since
    if written and fact.image != image:
        current: dict[str, object] | None = None if fact.image is None else dict(fact.image)
        conflict = Conflict(op.store.name, op.id, rule="offer", current=current, current_seq=fact.seq)
        message = f"{op.store.name} row {op.id!r} was lost by the hub, and has been written anew since"
        raise Refusal("HUB_LOST_DATA", message, conflict=conflict)
    if trace is not None and trace.position > offer.seq:
        return False
    work.put(key, image)
    return not written


def withdrawn(offer: Recovers, facts: Facts) -> Iterator[RowKey]:
    """Rows that older witnesses have brought in and the one whose ``offer`` is the last has not: it saw them go."""
    for key, trace in facts.traces.items():
        fact = facts.rows.get(key)
        if trace.position < offer.seq and fact is not None and fact.image is not None and fact.seq == trace.seq:
            yield key
