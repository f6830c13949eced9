"""One connection to the hub: what was agreed when it opened, and the check that both sides know one history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio
from msgspec import Struct
from msgspec.structs import replace

from atoma.contracts.events import LostRowsExpired
from atoma.contracts.failures import info_from
from atoma.contracts.replica import ClientIdentity, LostRow
from atoma.contracts.sync import (
    PROTOCOL_OLDEST,
    PROTOCOL_VERSION,
    Limits,
    OpenReply,
    OpenRequest,
    Outcome,
    Place,
)
from atoma.errors import AtomaError, RemoteError
from atoma.ports.local import LocalTx
from atoma.ports.service import SyncService
from atoma.schema.agreement import check_agreement
from atoma.sync.adopt import adopt_rows
from atoma.sync.failures import HistoryMoved, WrongHub, error_from, of_another
from atoma.sync.outbox import takes_every_edit, unspeakable
from atoma.sync.parts import ask_for, given_in
from atoma.sync.repair.changes import Aged, Offered
from atoma.sync.repair.diagnosis import Diagnosis, diagnose, made_too_often
from atoma.sync.repair.offers import has_aged, is_released
from atoma.sync.repair.procedure import look_up_waiting, new_client_id, repair
from atoma.sync.replica import RepairOrder, Replica
from atoma.sync.requests import opened
from atoma.sync.staging import EpochMoved, HubMet, Replied, TakingNoted

SCOPES_AT_ONCE = 4
"""So many scopes have a page in flight at the same time."""

PUSH = ""
"""Among the lanes that are failing, the one that pushes; no scope has this name."""


@dataclass(slots=True)
class SyncSession:
    """An open sync session.

    Attributes:
        service: The hub.
        request: What it was told of this file at the opening.
        identity: Who this file is to the hub, as of the opening.
        limits: Bounds to keep to.
        verified_mid: Last mutation the hub decided whose digest both sides agree on.
        verified_digest: Digest chain after it.
        heads: Heads of the scopes at the opening.
        forks: Scopes whose history at the hub is another one behind this sequence, which the file is beyond.
        compared: Scopes that the hub has compared with this file.
        version_told: What requests say of this client's version; see :meth:`Replica.version_told`.
        refused: Scopes the hub does not give out, with the reason.
        partless: Those of them of which it refuses only the shapes in which they are wanted: what is written there may be pushed.
        fault: Why nothing may be pushed from this file as it is; pulling goes on. None when pushing may.
        proto: The version of the protocol that was agreed on.
        shapes: The shapes in which the hub gives out each scope; none for all of it.
        streaming: Whether hints arrive.
        listened: Scopes of which hints were asked for last.
        pushing: Whether more than one request's worth is being pushed.
        pulling: Held by every pull, so that many scopes do not ask all at once.
        progressed: Whether anything has worked since the opening.
        failing: What has failed and is tried again: the scopes that are pulled, and :data:`PUSH`.
    """

    service: SyncService
    request: OpenRequest
    identity: ClientIdentity
    limits: Limits
    verified_mid: int
    verified_digest: bytes
    heads: dict[str, int] = field(default_factory=dict[str, int])
    forks: dict[str, int] = field(default_factory=dict[str, int])
    compared: set[str] = field(default_factory=set[str])
    version_told: int = 0
    refused: dict[str, AtomaError] = field(default_factory=dict[str, AtomaError])
    partless: set[str] = field(default_factory=set[str])
    fault: AtomaError | None = None
    proto: int = PROTOCOL_OLDEST
    shapes: dict[str, tuple[bytes, ...]] = field(default_factory=dict[str, tuple[bytes, ...]])
    streaming: bool = False
    listened: frozenset[str] = frozenset()
    pushing: bool = False
    pulling: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(SCOPES_AT_ONCE))
    progressed: bool = False
    failing: set[str] = field(default_factory=set[str])

    def goes_on(self, lane: str) -> bool:
        """Note that ``lane`` works; whether it was the last one that kept the session waiting."""
        if lane not in self.failing:
            return False
        self.failing.discard(lane)
        return not self.failing and self.fault is None

    def given(self, scopes: Sequence[str]) -> tuple[str, ...]:
        """Those of ``scopes`` that the hub gives out."""
        return tuple(scope for scope in scopes if scope in self.heads and scope not in self.refused)

    def agrees(self, scope: str) -> bool:
        """Whether the hub, when the session was opened, had everything of the scope that this file has seen."""
        return scope in self.compared and scope not in self.forks

    def forget(self, scope: str) -> None:
        """Let go of what was agreed on ``scope``, which was dropped, or is asked for anew."""
        self.heads.pop(scope, None)
        self.refused.pop(scope, None)
        self.partless.discard(scope)
        self.compared.discard(scope)
        self.shapes.pop(scope, None)


async def open_sync_session(replica: Replica, service: SyncService) -> SyncSession:
    """Agree with the hub on identity and history; a file that has another history is repaired first.

    Raises:
        HubLostData: The hub was restored, and the repair waits for somebody, or the hub cannot tell where the histories part.
        ClientForked: The hub cannot tell where the histories part.
        WrongHub: The file belongs to another hub or principal.
        SchemaMismatch: The hub reads a field differently; nothing was sent or taken.
        RemoteError: The hub refuses the session.
        TransportError: The connection broke.
    """
    order, replica.repairs.order = replica.repairs.order, None
    fault: AtomaError | None = None
    while True:
        opening = await _open(replica, service, order)
        if opening.fault is None:
            break
        if not opening.repairable:
            raise opening.refusal
        parted = opening.parted
        told = (replica, service, opening.fault, opening.request, opening.reply, parted.mended, parted.apart)
        if order is not None and order.rehearsal:
            replica.repairs.told = await repair(*told, rehearsal=True)
            raise opening.fault.waiting
        if order is None and (fault := await _waiting(replica, opening.fault)) is not None:
            if parted.mended or opening.fault.cause == "HUB_LOST_DATA":
                raise fault
            break  # the hub's history is still this file's: it is followed, and only what is pushed has to wait
        order, replica.repairs.told = None, await repair(*told)
    reply = opening.reply
    identity = opening.identity
    if not (identity.hub_id and identity.principal):  # a pre-built file knows its hub before its user
        identity = await replica.change(HubMet(reply.hub_id, reply.principal, _taken(replica)))
    if fault is None and not takes_every_edit(reply.proto):
        fault = await replica.database.inspect(partial(unspeakable, verified_mid=reply.last_mid, proto=reply.proto))
    session = SyncSession(
        service,
        opening.request,
        identity,
        reply.limits,
        verified_mid=reply.last_mid if fault is None else 0,
        verified_digest=reply.last_digest,
        forks=opening.parted.forks,
        compared=opening.parted.compared,
        version_told=replica.version_told(reply),
        fault=fault,
        proto=reply.proto,
    )
    await _take_over(replica, opening)
    await _release(replica, reply)
    replica.replicated.asked.clear()
    replica.replicated.refused.clear()
    replica.replicated.apart = {**opening.parted.apart}
    if opening.verdicts:  # a page might bring them too, but nobody can be sure that the hub knows them until then
        replica.settled(await replica.change(Replied(replica.replicated.apart), verdicts=opening.verdicts))
    _heed(replica, session, reply)
    parts = [scope for scope in replica.scopes if replica.replicated.shapes(scope)]
    if parts:
        await subscribe(replica, session, parts)
    board = replica.board
    board.show(replace(board.current, principal=reply.principal))
    return session


def _heed(replica: Replica, session: SyncSession, reply: OpenReply) -> None:
    """Go by what the hub says of scopes."""
    for status in reply.scopes:
        scope, error = status.scope, status.error
        session.heads[scope] = status.head
        session.refused.pop(scope, None)
        session.partless.discard(scope)
        if error is not None:
            session.refused[scope] = error_from(error)
        else:
            try:
                session.shapes[scope] = given_in(replica, scope)
            except RemoteError as refused:
                session.refused[scope], error = refused, info_from(refused)
                session.partless.add(scope)
        replica.show_opening(scope, status.head)
        replica.show_scope_error(scope, error)


async def subscribe(replica: Replica, session: SyncSession, scopes: Sequence[str]) -> None:
    """Agree with the hub on scopes that have come to replicate while the session is open.

    Raises:
        HistoryMoved: The file has rows of one, of another history than the hub's: the session has to be opened anew.
        RemoteError: The hub refuses.
        TransportError: The connection broke.
    """
    places = await replica.database.inspect(lambda tx: _places(tx, scopes))
    reply = await ask_for(replica, session.service, session.request, session.proto, scopes, places)
    parted = _parted(places, reply)
    apart = _apart(replica, parted)
    for scope in scopes:
        replica.replicated.apart.pop(scope, None)
        if scope not in apart and (scope in parted.forks or scope in parted.moved):
            raise HistoryMoved(f"the hub has another history of scope {scope!r} than this file")
    replica.replicated.apart.update(apart)
    session.compared |= parted.compared
    _heed(replica, session, reply)
    replica.position.show_all()


async def _waiting(replica: Replica, found: Diagnosis) -> AtomaError | None:
    """Why a repair is not made by itself; None when it is."""
    if replica.repairs.manual:
        return found.waiting
    now_ms = replica.environment.wall_ms()
    made = await replica.database.inspect(lambda tx: tx.inbox.repairs())
    return found.repeated if made_too_often(made, found.cause, now_ms) else None


class Parted(Struct, frozen=True):
    """A comparison of the hub's history with this file's.

    Attributes:
        compared: Scopes that the hub has compared with this file.
        forks: Those of them whose history at the hub is another one behind this sequence, which the file is beyond.
        moved: Those of them whose epoch there is another one than this file's.
        placeless: Those of them in which this file has no place yet, so that nothing tells of which epoch its acks are.
        apart: Those of ``forks`` that cannot be mended in this session: the hub gives them out in none of the shapes wanted.
    """

    compared: set[str]
    forks: dict[str, int]
    moved: set[str]
    placeless: set[str] = set()
    apart: dict[str, int] = {}

    @property
    def mended(self) -> set[str]:
        """Scopes that a repair brings back to the hub's history."""
        return self.forks.keys() - self.apart.keys()


@dataclass(frozen=True, slots=True)
class Opening:
    """A request to open, its answer, and what that means.

    Attributes:
        identity: Who the file is.
        request: What was told.
        reply: What was answered.
        parted: Where the histories part.
        fault: Why the file does not continue the hub's history, None when it does.
        verdicts: What the hub was asked for and has told, by key.
    """

    identity: ClientIdentity
    request: OpenRequest
    reply: OpenReply
    parted: Parted
    fault: Diagnosis | None
    verdicts: Mapping[str, Outcome] = field(default_factory=dict[str, Outcome])

    @property
    def repairable(self) -> bool:
        """Whether a repair can be made: not with a hub that cannot tell where the histories part."""
        return bool(self.parted.compared)

    @property
    def refusal(self) -> AtomaError:
        """Why no repair can be made."""
        errors = [status.error for status in self.reply.scopes if status.error is not None]
        assert self.fault is not None
        return error_from(errors[0]) if errors else self.fault.error


async def _open(replica: Replica, service: SyncService, order: RepairOrder | None) -> Opening:
    """Tell the hub who this file is and where, and compare histories.

    Raises:
        WrongHub: The file belongs to another hub or principal, and is not to be handed over.
        SchemaMismatch: A store that replicates has a field that the hub declares with another type.
    """
    scopes = replica.scopes
    replica.replicated.anew.clear()  # every one of them is asked for
    identity, places = await replica.database.inspect(lambda tx: (tx.outbox.identity(), _places(tx, scopes)))
    await replica.database.flush()  # the hub forgets what this file says is settled
    request = _request(replica, identity, places)
    fault: Diagnosis | None = None
    try:
        reply = await opened(service, request)
        check_owner(identity, reply)
    except AtomaError as error:
        if order is None or not order.adopt or not of_another(error):
            raise
        request = replace(request, client_id=new_client_id(replica), confirmed_mid=0, tail_mid=0, hub_id=b"")
        reply = await opened(service, request)
        fault = Diagnosis("WRONG_HUB", f"handed over to {reply.principal!r} at hub {reply.hub_id.hex()}: {error}")
    check_agreement(replica.schema.forms, reply.forms, sorted(replica.stores), packed=True)
    identity = await _note_taking(replica, identity, reply)
    return await _compare(replica, service, identity, request, reply, fault)


async def _note_taking(replica: Replica, identity: ClientIdentity, reply: OpenReply) -> ClientIdentity:
    """Remember of which stores rows come, and that they come turned into an earlier version.

    Once the file is of a later one, or takes a store more, every scope is fetched anew. What the file has in such a store by
    itself is queued first, or the snapshot would take it away.
    """
    behind, own, stores = replica.version_told(reply), replica.schema.version, _taken(replica)
    known = identity.stores if identity.hub_id else stores  # at the first contact nothing has been passed over yet
    stale, more = 0 < identity.behind < own, known is not None and not replica.stores <= set(known)
    if not stale and behind in (0, identity.behind) and known == stores:
        return identity
    if more:
        for scope in await replica.database.inspect(lambda tx: tx.scopes.every()):
            await adopt_rows(replica, scope)
    return await replica.change(TakingNoted(behind, stores, anew=stale or more))


def _taken(replica: Replica) -> tuple[str, ...]:
    """The stores of which rows are taken, as the file remembers them."""
    return tuple(sorted(replica.stores))


def _request(replica: Replica, identity: ClientIdentity, places: tuple[Place, ...]) -> OpenRequest:
    return OpenRequest(
        client_id=identity.client_id,
        incarnation=identity.incarnation,
        schema_version=replica.schema.version,
        schema_hash=replica.schema.hash,
        scopes=tuple(place.scope for place in places),
        confirmed_mid=identity.confirmed_mid,
        tail_mid=identity.next_mid - 1,
        hub_id=identity.hub_id,
        proto_max=PROTOCOL_VERSION,
        places=places,
    )


async def _compare(
    replica: Replica,
    service: SyncService,
    identity: ClientIdentity,
    request: OpenRequest,
    reply: OpenReply,
    fault: Diagnosis | None,
) -> Opening:
    """What the reply means for this file; ``fault`` is what is known to be wrong already."""
    parted = _parted(request.places, reply)
    forked = sorted(parted.forks)
    for scope in forked:
        replica.replicated.asked.pop(scope, None)  # it was said in another session, of what was wanted then
    if any(map(replica.replicated.shapes, forked)):
        await ask_for(replica, service, request, reply.proto, forked)
    if fault is not None:  # it is handed over: whatever waits here was decided elsewhere
        return Opening(identity, request, reply, replace(parted, moved=set(request.scopes)), fault)
    parted = replace(parted, apart=_apart(replica, parted))
    fault = await replica.database.inspect(lambda tx: diagnose(tx, reply))
    if parted.mended and (fault is None or fault.cause != "CLIENT_EXPIRED"):
        where = ", ".join(f"{scope!r} behind {parted.forks[scope]}" for scope in sorted(parted.mended))
        fault = Diagnosis(
            "HUB_LOST_DATA", f"the hub has another history of scope {where} than this file: it was restored"
        )
    if fault is None and parted.compared:
        found = await look_up_waiting(replica, service, request, reply, parted.moved | parted.placeless)
        if not isinstance(found, Diagnosis):
            return Opening(identity, request, reply, parted, None, found)
        fault = found
    return Opening(identity, request, reply, parted, fault)


def _parted(places: Sequence[Place], reply: OpenReply) -> Parted:
    """Where the hub's history and the one of ``places`` part."""
    told = {status.scope: status.fork for status in reply.scopes if status.fork is not None}
    known = [place for place in places if place.scope in told]
    return Parted(
        compared=set(told),
        forks={place.scope: fork for place in known if (fork := told[place.scope]) < place.cursor.seq},
        moved={place.scope for place in known if place.cursor.epoch not in (b"", reply.epoch)},
        placeless={place.scope for place in known if not place.cursor.epoch},
    )


def _apart(replica: Replica, parted: Parted) -> dict[str, int]:
    """Those of the forks that the hub, which was asked for them, does not give out in any of the shapes in which they are wanted."""
    return {scope: fork for scope, fork in parted.forks.items() if not replica.replicated.is_given(scope)}


def _places(tx: LocalTx, scopes: Sequence[str]) -> tuple[Place, ...]:
    """Where this file is in every scope."""
    return tuple(tx.scopes.read(scope).place for scope in scopes)


async def _take_over(replica: Replica, opening: Opening) -> None:
    """Go on in the hub's epoch where nothing was lost."""
    epoch = opening.reply.epoch
    parted = opening.parted
    lost_nothing = (parted.moved | parted.placeless) - parted.forks.keys()
    renewed = [place for place in opening.request.places if place.scope in lost_nothing]
    if renewed:
        await replica.change(EpochMoved(renewed, epoch))


async def _release(replica: Replica, reply: OpenReply) -> None:
    """Offer what was kept and may be offered by now, and then let go of what nobody has decided about for long."""

    def held(tx: LocalTx) -> list[LostRow]:
        return [row for row in tx.inbox.lost(resolved=False) if is_released(row, reply, replica.on_hub_loss)]

    if reply.words and (rows := await replica.database.inspect(held)):
        await replica.change(Offered(rows, released=True))
    if await replica.database.inspect(has_aged) and (expired := await replica.change(Aged())):
        replica.emit(LostRowsExpired(expired))


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
