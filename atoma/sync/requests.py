"""Requests of which a device chooses the size: they are made smaller where the hub, or something on the way, takes less."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from atoma.contracts.shapes import mark_of, marked
from atoma.contracts.sync import (
    Cursor,
    Limits,
    OpenReply,
    OpenRequest,
    PullReply,
    PullRequest,
    SnapshotReply,
    SnapshotRequest,
)
from atoma.errors import AtomaError, RemoteError
from atoma.ports.service import SyncService
from atoma.sync.failures import Course, HistoryMoved, SyncCall, course
from atoma.sync.replica import bounded

_Page = TypeVar("_Page", SnapshotReply, PullReply)

PAGE_CHANGES = 2_000
"""A page is asked for with so many changes at first."""
MIN_BYTES = 1_024
"""A page that does not fit is asked for with half the bytes, down to so many: then it holds a single change."""
TOLD_BYTES = 1_048_576
"""About so many bytes of shapes are told in one request; of a scope they are told together."""


class RequestSize:
    """The size of requests of one kind, in bytes or in items: half of one that was too large, from then on.

    Args:
        call: The request.
        most: What is begun with.
        least: Nothing smaller is asked for.
    """

    def __init__(self, call: SyncCall, most: int, least: int = 1) -> None:
        self._call: SyncCall = call
        self._least = least
        self.now = most

    def shrink(self, error: AtomaError, used: int | None = None) -> bool:
        """Take less from now on if ``error`` asks for it; whether the request is worth making again so.

        Args:
            error: What the request was answered with.
            used: Its size, where that was another one than was allowed.
        """
        was = self.now if used is None else used
        if course(self._call, error) is not Course.SMALLER or was <= self._least:
            return False
        self.now = max(self._least, was // 2)
        return True


class PageRequests:
    """Requests for the pages of one scope.

    Args:
        service: The hub.
        scope: The scope.
        client_id: Who asks.
        limits: The hub's.
        version: What is said of this client's version.

    Attributes:
        max_changes: A page has at most so many changes.
    """

    def __init__(self, service: SyncService, scope: str, client_id: bytes, limits: Limits, version: int) -> None:
        self._service = service
        self._scope = scope
        self._client_id = client_id
        self._version = version
        self._bytes = RequestSize("pull", limits.page_bytes, MIN_BYTES)
        self.max_changes = min(PAGE_CHANGES, limits.page_changes)

    async def snapshot(self, token: bytes, shapes: tuple[bytes, ...]) -> SnapshotReply:
        """The page of a snapshot at ``token``.

        Raises:
            RemoteError: The hub refuses, or not even the smallest page fits.
            TransportError: The connection broke.
        """
        page = await self._fitting(
            "snapshot",
            lambda size: self._service.snapshot(
                SnapshotRequest(self._scope, self._client_id, token, size, self.max_changes, self._version, shapes)
            ),
        )
        check_part(page.start, shapes)
        return page

    async def pull(self, cursor: Cursor, confirmed_mid: int, shapes: tuple[bytes, ...]) -> PullReply:
        """The page of the log behind ``cursor``, with verdicts of mutations behind ``confirmed_mid``.

        Raises:
            RemoteError: The hub refuses, or not even the smallest page fits.
            TransportError: The connection broke.
        """
        page = await self._fitting(
            "pull",
            lambda size: self._service.pull(
                PullRequest(
                    scope=self._scope,
                    cursor=cursor,
                    client_id=self._client_id,
                    outcomes_after_mid=confirmed_mid,
                    max_bytes=size,
                    max_changes=self.max_changes,
                    schema_version=self._version,
                    shapes=shapes,
                )
            ),
        )
        check_part(page.end, shapes)
        return page

    async def _fitting(self, what: str, ask: Callable[[int], Awaitable[_Page]]) -> _Page:
        """What ``ask`` is answered, called with the bytes that a page may have; with fewer as long as the page does not fit."""
        while True:
            try:
                with bounded(what):
                    return await ask(self._bytes.now)
            except RemoteError as error:
                if not self._bytes.shrink(error):
                    raise


def check_part(at: Cursor, shapes: Sequence[bytes]) -> None:
    """See that what was sent is of ``shapes``: an older process beside one that knows them passes them over.

    Raises:
        RemoteError: ``HUB_BEHIND``: it is not; another process may answer next time.
    """
    if marked(at.view) != mark_of(shapes):
        raise RemoteError("the hub has sent other parts of the scope than were asked for", remote_code="HUB_BEHIND")


async def opened(service: SyncService, request: OpenRequest) -> OpenReply:
    """The answer to ``request``; of what does not fit into one request the scopes are asked for in several.

    Raises:
        HistoryMoved: They were not answered by one hub, in one history.
        RemoteError: The hub refuses, or not even one scope fits.
        TransportError: The connection broke.
    """
    told = {each.scope: sum(map(len, each.shapes)) for each in request.shapes}
    size, left = RequestSize("open", max(1, len(request.scopes))), request.scopes
    replies: list[OpenReply] = []
    while left or not replies:
        some = _portion(left[: size.now], told)
        try:
            with bounded("open"):
                replies.append(await service.open(_about(request, some)))
        except RemoteError as error:
            if not size.shrink(error, len(some)):
                raise
            continue
        left = left[len(some) :]
    last = replies[-1]
    if any((each.hub_id, each.epoch, each.principal) != (last.hub_id, last.epoch, last.principal) for each in replies):
        raise HistoryMoved("the hub's history has moved while it was asked for the scopes in several requests")
    return replace(last, scopes=tuple(status for each in replies for status in each.scopes))


def _portion(scopes: Sequence[str], told: Mapping[str, int]) -> tuple[str, ...]:
    """As many of ``scopes``, from the first on, as fit into a request with what is ``told`` of them."""
    size = 0
    for number, scope in enumerate(scopes):
        size += told.get(scope, 0)
        if number and size > TOLD_BYTES:
            return tuple(scopes[:number])
    return tuple(scopes)


def _about(request: OpenRequest, scopes: tuple[str, ...]) -> OpenRequest:
    """What ``request`` says of ``scopes``."""
    if scopes == request.scopes:
        return request
    places = tuple(place for place in request.places if place.scope in scopes)
    shapes = tuple(each for each in request.shapes if each.scope in scopes)
    return replace(request, scopes=scopes, places=places, shapes=shapes)
