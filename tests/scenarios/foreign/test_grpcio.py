"""Programs made with grpcio, Google's own gRPC, call a hub; and our transport calls a server made with it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import trio

pytest.importorskip("grpclib")
grpc = pytest.importorskip("grpc")

from atoma.contracts.sync import NotifyRequest, OpenRequest, SnapshotRequest  # noqa: E402
from atoma.errors import AuthenticationError, ChannelBroken, ConnectFailed, ProtocolError, RemoteError  # noqa: E402
from atoma.testing.conformance import TOKEN, TinyHub  # noqa: E402
from atoma_transports.adapters import ServiceProxy  # noqa: E402
from atoma_transports.grpc import GrpcTransport  # noqa: E402
from atoma_transports.grpc.v1 import sync_pb2  # noqa: E402
from atoma_transports.serving import open_server  # noqa: E402
from tests.certificates import client_context, make_certificate, server_context  # noqa: E402
from tests.unit.transports.grpc.kit import PULL  # noqa: E402

pytestmark = pytest.mark.xdist_group("machine")

T = TypeVar("T")
BEARER = (("authorization", f"Bearer {TOKEN}"),)
SYNC = sync_pb2.DESCRIPTOR.services_by_name["Sync"]
PAGE = sync_pb2.PullRequest(
    scope="main", client_id=b"c", cursor=sync_pb2.Cursor(epoch=b"e", seq=1, hash=b"h"), max_bytes=10
)


class Stub:
    """The service as grpcio's own generator would give it, of the committed messages."""

    def __init__(self, channel: Any) -> None:
        for method in SYNC.methods:
            kind = channel.unary_stream if method.server_streaming else channel.unary_unary
            call = kind(
                f"/{SYNC.full_name}/{method.name}",
                request_serializer=getattr(sync_pb2, method.input_type.name).SerializeToString,
                response_deserializer=getattr(sync_pb2, method.output_type.name).FromString,
            )
            setattr(self, method.name, call)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


async def program(body: Callable[[], T]) -> T:
    """Run a foreign, blocking program in a thread, beside our server."""
    with trio.fail_after(60):
        return await trio.to_thread.run_sync(body, abandon_on_cancel=True)


@asynccontextmanager
async def serving(hub: TinyHub) -> AsyncGenerator[str]:
    async with open_server(hub, "127.0.0.1:0") as address:
        yield address


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.005)


def told(error: Any) -> dict[str, object]:
    """What a program finds in the trailer of an error, with nothing but MessagePack."""
    trailers = {item.key: item.value for item in error.trailing_metadata()}
    found: dict[str, object] = msgspec.msgpack.decode(trailers["atoma-error-bin"])
    return found


async def test_it_calls_every_kind_of_method() -> None:
    hub = TinyHub()
    hub.hints = 100

    def calls(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = Stub(channel)
            assert stub.Open(sync_pb2.OpenRequest(client_id=b"c", tail_mid=7), metadata=BEARER).last_mid == 7
            page = stub.Pull(PAGE, metadata=BEARER).stores[0]
            assert msgspec.msgpack.decode(page.rows) == [[1, "id", "üüüüü", b"\x00\xff", 1.5, None, -(2**63)]]
            values = msgspec.msgpack.encode({"text": "ß", "blob": b"\x00"})
            op = sync_pb2.RemoteOp(name="insert", store="notes", id="a", scope="main", values=values)
            write = sync_pb2.WriteCall(ops=[op], idem="key")
            written = stub.Write(write, metadata=BEARER)
            assert [(result.id, result.ok) for result in written.results] == [("a", True)]
            among = ["call", "in", [["col", 0, "id"], ["param", 0, "text"]]]
            query = msgspec.msgpack.encode([1, {"source": ["store", "notes"], "where": among}, ["a"]])
            asked = sync_pb2.QueryCall(ops=[sync_pb2.RemoteOp(name="query", store="notes", query=query)])
            found = stub.Query(asked, metadata=BEARER).results[0].found
            assert list(found.columns) == ["text", "blob"]
            assert msgspec.msgpack.decode(found.rows) == [["a", 1, 1, "main", "ß", b"\x00"]]
            assert not stub.Resolve(sync_pb2.ResolveCall(idem="key"), metadata=BEARER).abandoned
            assert stub.Resolve(sync_pb2.ResolveCall(idem="never"), metadata=BEARER).abandoned
            hints = stub.Notify(sync_pb2.NotifyRequest(scopes=["main"]), metadata=BEARER)
            assert [hint.head for hint in hints] == list(range(100))

    async with serving(hub) as address:
        await program(lambda: calls(address))
    assert hub.applied == ["a"]


async def test_large_messages_pass_both_ways() -> None:
    def call(address: str) -> int:
        with grpc.insecure_channel(address) as channel:
            stub = Stub(channel)
            mutation = sync_pb2.Mutation(mid=1, body=b"x" * 1_000_000)
            assert stub.Push(sync_pb2.PushRequest(client_id=b"c", mutations=[mutation]), metadata=BEARER).last_mid == 1
            reply = stub.Pull(sync_pb2.PullRequest(scope="main", max_bytes=3_000_000), metadata=BEARER)
            return len(reply.stores[0].rows)

    async with serving(TinyHub()) as address:
        assert await program(lambda: call(address)) > 3_000_000


async def test_errors_have_a_status_and_the_whole_truth_in_the_trailer() -> None:
    hub = TinyHub()
    hub.failure = RemoteError(
        "spä|ter", remote_code="RATE_LIMITED", remote_retryable=True, retry_after_s=1.5, info={"a": "ß"}
    )

    def call(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = Stub(channel)
            for attempt in (
                lambda: stub.Pull(PAGE, metadata=BEARER),
                lambda: list(stub.Notify(sync_pb2.NotifyRequest(scopes=["a"]), metadata=BEARER)),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    attempt()
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert refused.value.details() == "spä|ter"
                assert told(refused.value) == {
                    "code": "RATE_LIMITED", "message": "spä|ter", "retryable": True, "retry_after_ms": 1500,
                    "info": {"a": "ß"},
                }  # fmt: skip

    async with serving(hub) as address:
        await program(lambda: call(address))


async def test_a_long_error_does_not_break_its_limits() -> None:
    hub = TinyHub()
    hub.failure = RemoteError("ü" * 5000, remote_code="BUSY", remote_retryable=True, info={"a": "x" * 10_000})

    def call(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            for _ in range(20):  # metadata over grpcio's soft limit would be refused now and then
                with pytest.raises(grpc.RpcError) as refused:
                    Stub(channel).Pull(PAGE, metadata=BEARER)
                assert told(refused.value)["code"] == "BUSY"

    async with serving(hub) as address:
        await program(lambda: call(address))


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "Basic eDp5"),)])
async def test_a_wrong_token_is_unauthenticated(metadata: tuple[tuple[str, str], ...]) -> None:
    hub = TinyHub()

    def call(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                Stub(channel).Pull(PAGE, metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert told(refused.value)["code"] == "UNAUTHENTICATED"

    async with serving(hub) as address:
        await program(lambda: call(address))
    assert hub.pulled == []


async def test_its_deadline_stops_the_handler() -> None:
    hub = TinyHub()
    hub.on_pull = trio.sleep_forever

    def call(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            with pytest.raises(grpc.RpcError) as late:
                Stub(channel).Pull(PAGE, metadata=BEARER, timeout=0.5)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async with serving(hub) as address:
        await program(lambda: call(address))
        await until(lambda: hub.active == 0)
    assert hub.cancelled == 1
    assert 0 < hub.budgets[0] <= 0.51


async def test_its_cancel_stops_the_handler() -> None:
    hub = TinyHub()
    hub.on_pull = trio.sleep_forever
    stopped = threading.Event()

    def calls(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            stub = Stub(channel)
            call = stub.Pull.future(PAGE, metadata=BEARER)
            while not hub.active:
                time.sleep(0.005)
            call.cancel()
            while hub.active:
                time.sleep(0.005)
            hub.hints = 10**9
            hints = stub.Notify(sync_pb2.NotifyRequest(scopes=["a"]), metadata=BEARER)
            assert [next(hints).head for _ in range(10)] == list(range(10))
            hints.cancel()
            stopped.wait(20)

    async with serving(hub) as address, trio.open_nursery() as nursery:
        nursery.start_soon(program, lambda: calls(address))
        await until(lambda: hub.cancelled == 2)
        stopped.set()
    assert hub.active == 0


async def test_it_calls_over_tls_with_a_ca_of_its_own(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    async with open_server(TinyHub(), "127.0.0.1:0", ssl_context=server_context(certificate)) as address:
        port = address.rpartition(":")[2]

        def call() -> int:
            credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
            with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
                return int(Stub(channel).Pull(PAGE, metadata=BEARER).head)

        assert await program(call) == 2
        ours = client_context(certificate)
        async with GrpcTransport(f"grpcs://localhost:{port}", token=TOKEN, ssl_context=ours).connect() as channel:
            assert (await ServiceProxy(channel).pull(PULL)).head == 2
        with pytest.raises(ConnectFailed, match="certificate is refused"):
            async with GrpcTransport(f"grpcs://localhost:{port}", token=TOKEN).connect():
                raise AssertionError("trusted an unknown CA")


async def test_a_strangers_tool_learns_health_and_methods() -> None:
    """As grpcurl does: ask which services there are, fetch their files, know their messages; all without a token."""

    def explore(address: str) -> Any:
        program = str(Path(__file__).with_name("grpcio_explorer.py"))
        command = [sys.executable, program, address, "", "atoma.sync.v1.Sync", "nobody"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    hub = TinyHub()
    async with serving(hub) as address:
        found = await program(lambda: explore(address))
    assert found["health"] == {
        "": "SERVING", "atoma.sync.v1.Sync": "SERVING", "nobody": "NOT_FOUND", "watched": "SERVING",
    }  # fmt: skip
    reflection = ["ServerReflectionInfo"]
    assert found["services"] == {
        "atoma.sync.v1.Sync": [method.name for method in SYNC.methods],
        "grpc.health.v1.Health": ["Check", "Watch"],
        "grpc.reflection.v1.ServerReflection": reflection,
        "grpc.reflection.v1alpha.ServerReflection": reflection,
    }
    assert found["messages"] == {
        "atoma.sync.v1.PullRequest": [field.name for field in sync_pb2.PullRequest.DESCRIPTOR.fields],
        "atoma.sync.v1.RemoteOp": [field.name for field in sync_pb2.RemoteOp.DESCRIPTOR.fields],
        "google.protobuf.FileDescriptorProto": None,  # not ours to tell
    }
    assert hub.peers == []


class ForeignSync:
    """A part of the service, written with grpcio by somebody who knows the .proto and nothing else."""

    def __init__(self) -> None:
        self.tokens: list[object] = []
        self.slow = threading.Semaphore(0)
        self.cancelled = threading.Event()

    def handler(self) -> Any:
        def unary(answer: Any, request: Any, reply: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                answer, request_deserializer=request.FromString, response_serializer=reply.SerializeToString
            )

        notify = grpc.unary_stream_rpc_method_handler(
            self.notify,
            request_deserializer=sync_pb2.NotifyRequest.FromString,
            response_serializer=sync_pb2.Hint.SerializeToString,
        )
        methods = {
            "Open": unary(self.open, sync_pb2.OpenRequest, sync_pb2.OpenReply),
            "Pull": unary(self.pull, sync_pb2.PullRequest, sync_pb2.PullReply),
            "Notify": notify,
        }
        return grpc.method_handlers_generic_handler(SYNC.full_name, methods)

    def open(self, request: Any, context: Any) -> Any:
        self.tokens.append(dict(context.invocation_metadata()).get("authorization"))
        return sync_pb2.OpenReply(principal="foreign", last_mid=request.tail_mid)

    def pull(self, request: Any, context: Any) -> Any:
        if request.scope == "denied":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not för you")
        if request.scope == "login":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        if request.scope == "slow":
            context.add_callback(self.cancelled.set)
            self.slow.release()
            self.cancelled.wait(20)
        rows = msgspec.msgpack.encode([[1, "a", "ß"]])
        page = sync_pb2.StoreChanges(store="notes", schema_version=1, columns=["id", "text"], rows=rows)
        return sync_pb2.PullReply(scope=request.scope, stores=[page], head=5)

    def notify(self, request: Any, context: Any) -> Iterator[Any]:
        for number in range(1000):
            yield sync_pb2.Hint(scope=request.scopes[0], head=number)


@contextmanager
def foreign_server(credentials: Any = None) -> Iterator[tuple[str, ForeignSync, Any]]:
    service = ForeignSync()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((service.handler(),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}", service, server
    finally:
        server.stop(None).wait(10)


async def test_our_transport_calls_it_over_tls(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    pem = certificate.read_bytes()
    with foreign_server(grpc.ssl_server_credentials([(pem, pem)])) as (address, service, _):
        secure = f"grpcs://localhost:{address.rpartition(':')[2]}"
        ours = client_context(certificate)
        async with GrpcTransport(secure, token="my-token", ssl_context=ours).connect() as channel:
            opened = await ServiceProxy(channel).open(OpenRequest(b"c", 1, 1, b"", ("main",)))
        assert (opened.principal, service.tokens) == ("foreign", ["Bearer my-token"])


async def test_our_transport_calls_a_server_made_with_it() -> None:
    with foreign_server() as (address, service, server):
        async with GrpcTransport(address, token="my-token").connect() as channel:
            proxy = ServiceProxy(channel)
            opened = await proxy.open(OpenRequest(b"c", 1, 1, b"", ("main",), tail_mid=3))
            assert (opened.principal, opened.last_mid, opened.proto) == ("foreign", 3, 1)
            assert service.tokens == ["Bearer my-token"]
            page = (await proxy.pull(PULL)).stores[0]
            assert (page.columns, page.rows) == (("id", "text"), ((1, "a", "ß"),))
            async with proxy.notify(NotifyRequest(("main",))) as hints:
                assert [hint.head async for hint in hints] == list(range(1000))
            with pytest.raises(RemoteError, match="not för you") as denied:
                await proxy.pull(msgspec.structs.replace(PULL, scope="denied"))
            assert (denied.value.remote_code, denied.value.remote_retryable) == ("PERMISSION_DENIED", False)
            with pytest.raises(AuthenticationError, match="who are you"):
                await proxy.pull(msgspec.structs.replace(PULL, scope="login"))
            with pytest.raises(ProtocolError, match="UNIMPLEMENTED"):
                await proxy.snapshot(SnapshotRequest("main", b"c"))
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.5):
                await proxy.pull(msgspec.structs.replace(PULL, scope="slow"))
            assert await trio.to_thread.run_sync(service.cancelled.wait, 10)
            service.slow.acquire()
            service.cancelled.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(proxy.pull, msgspec.structs.replace(PULL, scope="slow"))
                await trio.to_thread.run_sync(service.slow.acquire)
                nursery.cancel_scope.cancel()
            assert await trio.to_thread.run_sync(service.cancelled.wait, 10)
            assert (await proxy.pull(PULL)).head == 5
            await trio.to_thread.run_sync(server.stop(None).wait)
            with pytest.raises(ChannelBroken):
                await proxy.pull(PULL)
