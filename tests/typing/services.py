"""What a type checker must infer, and what it must refuse, of services and their table of methods. Checked, never run."""

from __future__ import annotations

from typing import assert_type

from atoma.contracts.execution import QueryRequest, QueryResult
from atoma.contracts.sync import Hint, NotifyRequest, OpenReply, OpenRequest, PullReply, PullRequest
from atoma.ports import Channel, SyncService
from atoma_transports.adapters import PassingService, ServiceProxy
from atoma_transports.adapters.methods import OPEN, QUERY
from atoma_transports.adapters.operations import QUERIES
from atoma_transports.calls.methods import UnaryMethod, stream, translated, unary


async def proxies(channel: Channel, query: QueryRequest, notify: NotifyRequest) -> None:
    service: SyncService = ServiceProxy(channel)
    service = PassingService(service)
    assert_type(await service.query(query), QueryResult)
    assert_type(await service.query(request=query), QueryResult)
    await service.pull(query)  # type: ignore[arg-type]
    async with service.notify(notify) as hints:
        assert_type(await anext(hints), Hint)


class Wrong(PassingService):
    async def open(self, request: PullRequest) -> OpenReply:  # type: ignore[override]
        return OpenReply(b"", b"", "", 0, b"", ())


def rows() -> None:
    assert_type(OPEN, UnaryMethod[OpenRequest, OpenReply])
    assert_type(QUERY, UnaryMethod[QueryRequest, QueryResult])
    unary(SyncService.pull, PullRequest, OpenReply)  # type: ignore[arg-type]
    unary(SyncService.pull, OpenRequest, PullReply)  # type: ignore[arg-type]
    translated(SyncService.write, QUERIES)  # type: ignore[arg-type]
    stream(SyncService.notify, NotifyRequest, OpenReply)  # type: ignore[arg-type]
