"""The protocol's methods: name, request, reply."""

from __future__ import annotations

from atoma.contracts.sync import (
    Hint,
    NotifyRequest,
    OpenReply,
    OpenRequest,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    SnapshotReply,
    SnapshotRequest,
)
from atoma_transports._channel.methods import Method, MethodTable
from atoma_transports.protocol.operations import OpsReply, QueryCall, ResolveCall, ResolveReply, WriteCall

METHODS: MethodTable = {
    "open": Method(OpenRequest, OpenReply),
    "push": Method(PushRequest, PushReply),
    "pull": Method(PullRequest, PullReply),
    "snapshot": Method(SnapshotRequest, SnapshotReply),
    "notify": Method(NotifyRequest, Hint, streams=True),
    "query": Method(QueryCall, OpsReply),
    "write": Method(WriteCall, OpsReply),
    "resolve": Method(ResolveCall, ResolveReply),
}
"""Everything that can be called."""
