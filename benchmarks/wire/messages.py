"""What all gRPC variants send: the messages of the schema, made once."""

from __future__ import annotations

from atoma.contracts.sync import Hint, NotifyRequest
from atoma_transports.grpc.convert import pack
from atoma_transports.grpc.v1 import sync_pb2
from atoma_transports.protocol import OpsReply, RemoteOpResult, pack_rows
from benchmarks.wire import ours

QUERY = "/atoma.sync.v1.Sync/Query"
ITEMS = "/atoma.sync.v1.Sync/Notify"
QueryMessage = sync_pb2.QueryCall
OpsReplyMessage = sync_pb2.OpsReply
NotifyMessage = sync_pb2.NotifyRequest
HintMessage = sync_pb2.Hint

REQUEST = QueryMessage.FromString(pack(ours.REQUEST))
REPLY = OpsReplyMessage.FromString(pack(OpsReply((RemoteOpResult(0, found=pack_rows((ours.ROW,))),))))
HINT = HintMessage.FromString(pack(Hint("main", 1)))
assert NotifyMessage.FromString(pack(NotifyRequest(scopes=("7",)))).scopes[0] == "7"
