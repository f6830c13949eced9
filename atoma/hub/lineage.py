"""The two hash chains: a client's mutations, and a scope's log."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from atoma.contracts.codec import encode
from atoma.contracts.sync import Mutation
from atoma.ports.hub import LogTransaction, RowChange, ScopeState

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


def next_hash(previous: bytes, seq: int, changes: Sequence[RowChange]) -> bytes:
    """Lineage hash of a scope at ``seq``: equal hashes mean equal logs up to there."""
    digest = hashlib.sha256(previous + seq.to_bytes(8, "big"))
    for change in changes:
        digest.update(hashlib.sha256(encode((change.store, change.id, change.body))).digest())
    return digest.digest()[:HASH_BYTES]


def next_transaction(
    scope: ScopeState, changes: Sequence[RowChange], *, author: bytes, mid: int, principal: str
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
    )
