"""Parts of scopes in a session: which shapes the hub gives out, and that what it sends is of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from atoma.contracts.shapes import mark_of, marked
from atoma.contracts.sync import PROTOCOL_SHAPES, Cursor, OpenReply, OpenRequest, Place, ScopeShapes
from atoma.contracts.values import ErrorInfo
from atoma.errors import RemoteError
from atoma.ports.service import SyncService
from atoma.sync.failures import error_from
from atoma.sync.replica import Replica, bounded

WHOLE_ONLY = ErrorInfo("SHAPE_UNKNOWN", "the hub is of a version that gives out whole scopes only")


async def ask_for(
    replica: Replica,
    service: SyncService,
    request: OpenRequest,
    proto: int,
    scopes: Sequence[str],
    places: tuple[Place, ...] = (),
) -> OpenReply:
    """Ask the hub for ``scopes``, in the shapes in which they are wanted; what it answers.

    What it refuses of them is noted; see :func:`given_in`. A hub of before shapes is not told of them, and gives out none.

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
    told = tuple(ScopeShapes(scope, shapes) for scope, shapes in wanted.items()) if proto >= PROTOCOL_SHAPES else ()
    with bounded("open"):
        reply = await service.open(replace(request, scopes=tuple(scopes), places=places, shapes=told))
    refused = {status.scope: {each.shape: each.error for each in status.refused} for status in reply.scopes}
    for scope in scopes:
        replicated.asked[scope] = wanted.get(scope, ())
        errors: Mapping[bytes, ErrorInfo] = refused.get(scope, {})
        if proto < PROTOCOL_SHAPES:
            errors = dict.fromkeys(wanted.get(scope, ()), WHOLE_ONLY)
        replicated.refused[scope] = errors
    return reply


def given_in(replica: Replica, scope: str) -> tuple[bytes, ...]:
    """The shapes in which the hub, as far as it was asked, gives out ``scope``; none for all of it.

    Raises:
        RemoteError: It gives it out in none of those that it was asked for.
    """
    asked, refused = replica.replicated.asked.get(scope, ()), replica.replicated.refused.get(scope, {})
    given = tuple(shape for shape in asked if shape not in refused)
    if asked and not given:
        raise error_from(refused[asked[0]])
    replica.replicated.note(given)
    return given


def check_part(at: Cursor, shapes: Sequence[bytes]) -> None:
    """See that what was sent is of ``shapes``: an older process beside one that knows them passes them over.

    Raises:
        RemoteError: ``HUB_BEHIND``: it is not; another process may answer next time.
    """
    if marked(at.view) != mark_of(shapes):
        raise RemoteError("the hub has sent other parts of the scope than were asked for", remote_code="HUB_BEHIND")
