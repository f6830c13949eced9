"""One connection to the hub: what was agreed when it opened, and the check that both sides know one history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from atoma.contracts.overlay import ClientIdentity, PendingMutation
from atoma.contracts.sync import Limits, OpenReply, OpenRequest, Place
from atoma.errors import AtomaError, ClientForked
from atoma.ports.local import LocalTx
from atoma.ports.service import SyncService
from atoma.sync.failures import ClientExpired, HubLostData, WrongHub, error_from
from atoma.sync.outbox import next_digest
from atoma.sync.replica import Replica, bounded

SCOPES_AT_ONCE = 4
"""So many scopes have a page in flight at the same time."""


@dataclass(slots=True)
class Session:
    """An open session.

    Attributes:
        service: The hub.
        identity: Who this file is to the hub, as of the opening.
        limits: Bounds to keep to.
        verified_mid: Last mutation the hub decided whose digest both sides agree on.
        verified_digest: Digest chain after it.
        heads: Heads of the scopes at the opening.
        forks: Scopes whose history at the hub is another one behind this sequence, which the file is beyond.
        compared: Scopes that the hub has compared with this file.
        refused: Scopes the hub does not give out, with the reason.
        streaming: Whether hints arrive.
        pushing: Whether more than one request's worth is being pushed.
        pulling: Held by every pull, so that many scopes do not ask all at once.
        progressed: Whether anything has worked since the opening.
        push_failed: Whether the last push did not.
    """

    service: SyncService
    identity: ClientIdentity
    limits: Limits
    verified_mid: int
    verified_digest: bytes
    heads: dict[str, int] = field(default_factory=dict[str, int])
    forks: dict[str, int] = field(default_factory=dict[str, int])
    compared: set[str] = field(default_factory=set[str])
    refused: dict[str, AtomaError] = field(default_factory=dict[str, AtomaError])
    streaming: bool = False
    pushing: bool = False
    pulling: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(SCOPES_AT_ONCE))
    progressed: bool = False
    push_failed: bool = False

    def agrees(self, scope: str) -> bool:
        """Whether the hub, when the session was opened, had everything of the scope that this file has seen."""
        return scope in self.compared and scope not in self.forks


async def open_session(replica: Replica, service: SyncService) -> Session:
    """Agree with the hub on identity and history.

    Raises:
        ClientForked: The hub knows another history for this file.
        HubLostData: The hub has forgotten mutations it had decided.
        WrongHub: The file belongs to another hub or principal.
        RemoteError: The hub refuses the session.
        TransportError: The connection broke.
    """
    identity, places = await replica.database.inspect(lambda tx: (tx.identity(), _places(tx, replica.scopes)))
    request = OpenRequest(
        client_id=identity.client_id,
        incarnation=identity.incarnation,
        schema_version=replica.schema.version,
        schema_hash=replica.schema.hash,
        scopes=replica.scopes,
        confirmed_mid=identity.confirmed_mid,
        tail_mid=identity.next_mid - 1,
        hub_id=identity.hub_id,
        places=places,
    )
    with bounded("open"):
        reply = await service.open(request)
    check_owner(identity, reply)
    fault = await replica.database.inspect(lambda tx: check_history(tx, reply))
    if fault is not None:
        raise fault
    if not identity.hub_id:
        identity = await replica.apply.apply_writeback(lambda tx: _adopt_hub(tx, reply))
    session = Session(service, identity, reply.limits, reply.last_mid, reply.last_digest)
    await _compare(replica, session, places, reply)
    for status in reply.scopes:
        session.heads[status.scope] = status.head
        if status.error is not None:
            session.refused[status.scope] = error_from(status.error)
        replica.show_head(status.scope, status.head)
        replica.show_scope_error(status.scope, status.error)
    board = replica.board
    board.show(msgspec.structs.replace(board.current, principal=reply.principal))
    return session


def _places(tx: LocalTx, scopes: Sequence[str]) -> tuple[Place, ...]:
    """Where this file is in every scope."""
    found = (tx.subscription(scope) for scope in scopes)
    return tuple(Place(at.scope, at.cursor, at.trail) for at in found)


async def _compare(replica: Replica, session: Session, places: Sequence[Place], reply: OpenReply) -> None:
    """Note where the hub's history leaves this file's; where it does not, the file goes on in the hub's epoch."""
    forks = {status.scope: status.fork for status in reply.scopes if status.fork is not None}
    session.compared.update(forks)
    same = [place for place in places if forks.get(place.scope) == place.cursor.seq]
    session.forks.update(
        {place.scope: forks[place.scope] for place in places if place.scope in forks and place not in same}
    )
    renewed = [place for place in same if place.cursor.epoch not in (b"", reply.epoch)]
    if renewed:

        def adopt(tx: LocalTx) -> None:
            for place in renewed:
                tx.advance(place.scope, place.cursor, msgspec.structs.replace(place.cursor, epoch=reply.epoch))

        await replica.apply.apply_writeback(adopt)


def check_owner(identity: ClientIdentity, reply: OpenReply) -> None:
    """Refuse to talk to a hub, or as a principal, that the file does not belong to.

    Raises:
        WrongHub: The file belongs to another hub or principal.
    """
    if identity.hub_id and identity.hub_id != reply.hub_id:
        raise WrongHub(
            f"this file belongs to hub {identity.hub_id.hex()}, the one that answered is {reply.hub_id.hex()}; "
            "nothing was sent"
        )
    if identity.principal and identity.principal != reply.principal:
        raise WrongHub(
            f"this file belongs to {identity.principal!r}, the token is {reply.principal!r}'s; nothing was sent"
        )


def check_history(tx: LocalTx, reply: OpenReply) -> AtomaError | None:
    """Compare the hub's last mutation of this client, and the digest chain after it, with the file's own.

    None when the file continues the hub's history. Every case is decided by a digest or by a number the file never
    gave out: the mutation itself, the one after it (whose digest is over both), or the tail of the chain.
    """
    identity = tx.identity()
    last = reply.last_mid
    if not reply.known:
        return ClientExpired(
            "the hub has forgotten this client, which was away for too long; nothing was sent, the outbox is kept"
        )
    if last >= identity.next_mid:
        return ClientForked(
            f"the hub has decided mutation {last} of this client, the file has given out {identity.next_mid - 1}: "
            "it is an older state or a copy; nothing was sent, the outbox is kept"
        )
    same = tx.pending_by_mid(last)
    if same is not None and same.digest != reply.last_digest:
        return _forked(last)
    if last == identity.next_mid - 1:
        return _forked(last) if last and identity.tail_digest != reply.last_digest else None
    following = tx.pending_by_mid(last + 1)
    if following is None:
        return HubLostData(
            f"the hub has decided mutations up to {last} only, {last + 1} has already left the outbox: the hub was "
            "restored from an older state; the outbox is kept"
        )
    return None if _continues(following, reply.last_digest) else _forked(last)


def _continues(following: PendingMutation, digest: bytes) -> bool:
    return next_digest(digest, following.body) == following.digest


def _forked(mid: int) -> ClientForked:
    return ClientForked(
        f"mutation {mid} of this client is another one at the hub: this file, or a copy of it, has taken its own "
        "course; nothing was sent, the outbox is kept"
    )


def _adopt_hub(tx: LocalTx, reply: OpenReply) -> ClientIdentity:
    identity = msgspec.structs.replace(tx.identity(), hub_id=reply.hub_id, principal=reply.principal)
    tx.save_identity(identity)
    return identity
