"""The two hash chains, a client's mutations and a scope's log; and where a client's history leaves the hub's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from atoma.contracts.boots import BootedPlace, parted
from atoma.contracts.codec import encode
from atoma.contracts.sync import Mutation, Place
from atoma.ports.hub import Lineage, LogTransaction, ScopeState, WrittenRow

HASH_BYTES = 16


def next_digest(previous: bytes, body: bytes) -> bytes:
    """Digest chain of a client's mutations after ``body``."""
    return hashlib.sha256(previous + body).digest()


def broken_link(previous: bytes, mutations: Sequence[Mutation]) -> int | None:
    """Index of the first mutation whose digest does not continue the chain from ``previous``, None when all do."""
    for index, mutation in enumerate(mutations):
        if mutation.digest != next_digest(previous, mutation.body):
            return index
        previous = mutation.digest
    return None


def next_hash(previous: bytes, seq: int, changes: Sequence[WrittenRow]) -> bytes:
    """Lineage hash of a scope at ``seq``: equal hashes mean equal logs up to there."""
    digest = hashlib.sha256(previous + seq.to_bytes(8, "big"))
    for change in changes:
        digest.update(hashlib.sha256(encode((change.store, change.id, change.body))).digest())
    return digest.digest()[:HASH_BYTES]


def next_transaction(
    scope: ScopeState, changes: Sequence[WrittenRow], *, author: bytes, mid: int, principal: str, written_ms: int = 0
) -> LogTransaction:
    """The log transaction that takes the scope's next sequence with ``changes``."""
    seq = scope.head + 1
    return LogTransaction(
        scope=scope.scope,
        seq=seq,
        hash=next_hash(scope.head_hash, seq, changes),
        author=author,
        mid=mid,
        principal=principal,
        changes=tuple(changes),
        size=sum(len(change.id) + len(change.body or b"") for change in changes),
        written_ms=written_ms,
    )


def fork(place: Place, lineage: Lineage, witness: BootedPlace) -> int:
    """Up to where the history that ``place`` reports and the hub's are one.

    Exact where the hub knows where the place's epoch ended, and that one history alone has borne its name: where ``witness``, the
    place as it is proved, has come there by other boots, it is where those began. Else, and when a mark contradicts that, it is the
    last mark that both have: a lower bound, which is safe. What was offered since may have made the logs the same a while longer; rows
    that came back that way are none that the hub had kept, so it never lies behind the end of an epoch.
    """
    cursor, hashes = place.cursor, lineage.hashes
    marks = {mark.seq: mark.hash for mark in place.marks if mark.seq}
    common = max((seq for seq, hash_ in marks.items() if hashes.get(seq) == hash_), default=0)
    if common == cursor.seq:
        return common
    if lineage.ended is None:
        return min(common, lineage.began)
    end = min(cursor.seq, lineage.ended, parted(witness, lineage.scope.boots))
    contradicted = any(seq <= end and hashes.get(seq, hash_) != hash_ for seq, hash_ in marks.items())
    return min(common, end) if contradicted else end
