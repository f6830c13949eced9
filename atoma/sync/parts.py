"""Parts of scopes in a session: which shapes the hub gives out, and that what it sends is of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from atoma.contracts.shapes import SHAPES_MAX
from atoma.contracts.sync import PROTOCOL_SHAPES, OpenReply, OpenRequest, Place, ScopeShapes
from atoma.contracts.values import ErrorInfo
from atoma.ports.service import SyncService
from atoma.sync.failures import error_from
from atoma.sync.replica import Replica
from atoma.sync.requests import opened

WHOLE_ONLY = ErrorInfo("SHAPE_UNKNOWN", "the hub is of a version that gives out whole scopes only")
TOO_MANY = ErrorInfo(
    "TOO_MANY_SCOPES", f"more than {SHAPES_MAX} parts of the scope are wanted; leave one of them first"
)


async def ask_for(
    replica: Replica,
    service: SyncService,
    request: OpenRequest,
    proto: int,
    scopes: Sequence[str],
    places: tuple[Place, ...] = (),
) -> OpenReply:
    """Ask the hub for ``scopes``, in the shapes in which they are wanted; what it answers.

    What it refuses of them is noted; see :func:`given_in`. A hub of before shapes is not told of them, and gives out none. Of more parts of
    a scope than a hub takes those are not told that were not used for longest; they are noted as refused.

    Args:
        replica: The client's side.
        service: The hub.
        request: What it was told at the opening.
        proto: The version of the protocol that was agreed on.
        scopes: The scopes.
        places: Where the file is in them.

    Raises:
        RemoteError: The hub refuses.
        TransportError: The connection broke.
    """
    replicated = replica.replicated
    wanted = {scope: shapes for scope in scopes if (shapes := replicated.shapes(scope))}
    by_use = {scope: replicated.by_use(scope) for scope in wanted}
    told = {scope: tuple(sorted(shapes[:SHAPES_MAX])) for scope, shapes in by_use.items()}
    given = tuple(ScopeShapes(scope, told[scope]) for scope in scopes if scope in told)
    here = tuple(place for place in places if place.scope in scopes)
    asked = replace(request, scopes=tuple(scopes), places=here, shapes=given if proto >= PROTOCOL_SHAPES else ())
    reply = await opened(service, asked)
    refused = {status.scope: {each.shape: each.error for each in status.refused} for status in reply.scopes}
    for scope in scopes:
        replicated.asked[scope] = wanted.get(scope, ())
        errors: Mapping[bytes, ErrorInfo] = refused.get(scope, {})
        if proto < PROTOCOL_SHAPES:
            errors = dict.fromkeys(wanted.get(scope, ()), WHOLE_ONLY)
        replicated.refused[scope] = {**dict.fromkeys(by_use.get(scope, ())[SHAPES_MAX:], TOO_MANY), **errors}
    return reply


def given_in(replica: Replica, scope: str) -> tuple[bytes, ...]:
    """The shapes in which the hub, as far as it was asked, gives out ``scope``; none for all of it.

    Raises:
        RemoteError: It gives it out in none of those that it was asked for.
    """
    replicated = replica.replicated
    asked, refused = replicated.asked.get(scope, ()), replicated.refused.get(scope, {})
    if not replicated.is_given(scope):
        raise error_from(refused[asked[0]])
    given = tuple(shape for shape in asked if shape not in refused)
    replicated.note(given)
    return given
