"""What the hub's file still tells at the moment of a decision: outcomes, later names, and where epochs ended."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from atoma.testing.simulation.facts import Written
from atoma.testing.simulation.files import RawFile

Number = tuple[bytes, int]
"""A client's id and the number of its mutation."""


@dataclass
class Recall:
    """The file's memory.

    Attributes:
        epoch: The epoch now.
        ends: Heads of the scopes at the end of each earlier epoch.
        kept: Digests of the mutations whose outcomes are kept.
        later: By the digest that a mutation had first: the number that it was decided under.
        owners: Principals of the clients.
        last: The last number that was decided, by client.
        graves: What is left of the names of clients, and of mutations, that were forgotten.
        brought: By scope, store and id: the sequence of the row when an offer was last taken for it.
    """

    epoch: bytes = b""
    ends: Mapping[bytes, Mapping[str, int]] = field(default_factory=dict[bytes, Mapping[str, int]])
    kept: dict[Number, bytes] = field(default_factory=dict[Number, bytes])
    later: dict[bytes, Number] = field(default_factory=dict[bytes, Number])
    owners: dict[bytes, str] = field(default_factory=dict[bytes, str])
    last: dict[bytes, int] = field(default_factory=dict[bytes, int])
    graves: Collection[bytes] = ()
    brought: Mapping[tuple[str, str, str], int] = field(default_factory=dict[tuple[str, str, str], int])

    def known_until(self, scope: str, epoch: bytes, seq: int) -> int:
        """How much of the history now somebody knows who had seen ``seq`` of ``epoch``, as far as the file can tell."""
        if epoch == self.epoch or not seq:
            return seq
        if not epoch:
            return min([seq, *(ends.get(scope, 0) for ends in self.ends.values())])
        return min(seq, self.ends.get(epoch, {}).get(scope, 0))

    def outcome(self, written: Written) -> Number | None:
        """Under which number the mutation was decided before, by another name, as far as the file can tell."""
        origin = written.origin
        if origin is not None and self.kept.get(origin[:2]) == origin[2] and self._same_owner(written, origin[0]):
            return origin[:2]
        later = self.later.get(written.first_name[2])
        return later if later in self.kept and self._same_owner(written, later[0]) else None

    def is_doubtful(self, written: Written) -> bool:
        """Whether a mutation without an outcome may have been decided by another name, as far as the file can tell."""
        client, mid, digest = written.first_name
        if _grave(digest) in self.graves:
            return True
        if written.origin is None or (client in self.owners and not self._same_owner(written, client)):
            return False
        came_so_far = mid <= self.last.get(client, 0) and (client, mid) not in self.kept
        return came_so_far or (client not in self.owners and _grave(client) in self.graves)

    def _same_owner(self, written: Written, other: bytes) -> bool:
        mine = self.owners.get(written.client)
        return mine is None or mine == self.owners.get(other)

    def note(self, written: Written) -> None:
        """It has been decided since."""
        self.kept[written.client, written.mid] = written.digest
        self.last[written.client] = written.mid
        if written.origin is not None:
            self.later.setdefault(written.origin[2], (written.client, written.mid))


def _grave(name: bytes) -> bytes:
    return hashlib.sha256(name).digest()[:16]


def read_recall(file: RawFile) -> Recall:
    """What ``file`` tells now."""
    ends: dict[bytes, dict[str, int]] = {epoch: {} for (epoch,) in file.rows("SELECT epoch FROM _atoma_hub_epoch")}
    for epoch, scope, head in file.rows(
        "SELECT e.epoch, d.scope, d.head FROM _atoma_hub_epoch e JOIN _atoma_hub_epoch_end d ON d.epoch=e.number"
    ):
        ends[epoch][scope] = head
    outcomes = file.rows(
        "SELECT c.client_id, o.mid, o.digest FROM _atoma_hub_outcome o JOIN _atoma_hub_client c ON c.number=o.client"
    )
    aliases = file.rows(
        "SELECT a.digest, c.client_id, a.mid FROM _atoma_hub_alias a JOIN _atoma_hub_client c ON c.number=a.client"
    )
    return Recall(
        file.rows("SELECT epoch FROM _atoma_hub_info")[0][0],
        ends,
        {(client, mid): digest for client, mid, digest in outcomes},
        {digest: (client, mid) for digest, client, mid in aliases},
        dict(file.rows("SELECT client_id, principal FROM _atoma_hub_client")),
        dict(file.rows("SELECT client_id, last_mid FROM _atoma_hub_client")),
        {name for (name,) in file.rows("SELECT client FROM _atoma_hub_expired")},
        {
            (scope, store, id): seq
            for scope, store, id, seq in file.rows(
                "SELECT scope, store, id, max(seq) FROM _atoma_hub_trace GROUP BY scope, store, id"
            )
        },
    )
