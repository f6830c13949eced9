"""What the gRPC handler answers, asked by a client that knows nothing but gRPC."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError

from atoma.contracts.sync import Hint, Mutation, NotifyRequest, OpenReply, OpenRequest, PullReply, PushRequest
from atoma.contracts.values import ErrorInfo
from atoma.errors import RemoteError
from atoma.ports import Peer, Principal, SyncService
from atoma.testing.conformance import TOKEN, TinyHub
from atoma_transports.adapters import METHODS
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.grpc import handler as calls
from atoma_transports.grpc._driver.calls import GrpcLimits
from atoma_transports.grpc._driver.client import CallFailed, GrpcClient
from atoma_transports.grpc.convert import pack, unpack
from atoma_transports.grpc.handler import GrpcHandler
from atoma_transports.grpc.messages import Packed
from atoma_transports.grpc.standard import message_class
from atoma_transports.grpc.v1 import sync_pb2
from atoma_transports.grpc.v1.sync_grpc import SyncStub
from tests.unit.transports.grpc.kit import BEARER, PULL, open_handler, told
from tests.unit.transports.kit import Unasked

pytestmark = pytest.mark.virtual_time

PATH = "/atoma.sync.v1.Sync/"
UNARY, FEED = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM


async def ask(client: GrpcClient, method: str, data: bytes, metadata: dict[str, str] | None = None) -> bytes:
    async with client.request(PATH + method, UNARY, Packed, Packed, metadata=metadata or BEARER) as call:
        await call.send_message(Packed(data), end=True)
        reply = await call.recv_message()
    assert reply is not None
    return reply.data


async def test_it_answers_by_the_one_table_of_all_handlers() -> None:
    assert vars(calls)["METHODS"] is METHODS
    async with open_handler() as (port, client):
        for method in METHODS:
            cardinality = FEED if METHODS[method].feed else UNARY
            with pytest.raises(GRPCError) as refused:
                async with client.request(PATH + method.capitalize(), cardinality, Packed, Packed) as call:
                    await call.send_message(Packed(b""), end=True)
                    await call.recv_message()
            assert refused.value.status is Status.UNAUTHENTICATED, method
        assert (len(port.hub.peers), port.hub.active) == (len(METHODS), 0)


async def test_generated_stubs_call_it() -> None:
    async with open_handler() as (port, client):
        stub = SyncStub(client)
        opened = await stub.Open(sync_pb2.OpenRequest(client_id=b"c", tail_mid=7), metadata=BEARER)
        assert (opened.principal, opened.last_mid, opened.limits.page_changes) == ("alice", 7, 5000)
        port.hub.hints = 3
        hints = await stub.Notify(sync_pb2.NotifyRequest(scopes=["a"]), metadata=BEARER)
        assert [(hint.scope, hint.head) for hint in hints] == [("a", 0), ("a", 1), ("a", 2)]


async def test_the_first_call_tells_who_one_is_and_the_bounds() -> None:
    limits = ChannelLimits(frame_bytes=70_000, calls=7)
    async with open_handler(limits=limits) as (_, client):
        reply = await SyncStub(client).Hello(sync_pb2.HelloRequest(), metadata=BEARER)
        assert (reply.principal, reply.message_bytes, reply.calls) == ("alice", 70_000, 7)
        assert not reply.HasField("expires_in_ms")


@pytest.mark.parametrize(
    ("field", "text"),
    [("", "not known"), ("Bearer wrong", "not known"), ("Basic eDp5", "Bearer <token>"), (TOKEN, "Bearer <token>")],
)
async def test_without_the_right_token_nothing_is_done(field: str, text: str) -> None:
    async with open_handler() as (port, client):
        for method, message in (("Hello", b""), ("Pull", pack(PULL)), ("Pull", b"\xff")):
            with pytest.raises(GRPCError, match=text) as refused:
                await ask(client, method, message, {"authorization": field} if field else {"x": "y"})
            assert refused.value.status is Status.UNAUTHENTICATED
            assert told(refused.value).code == "UNAUTHENTICATED"
        assert port.hub.pulled == []


async def test_the_name_of_the_scheme_is_not_case_sensitive() -> None:
    async with open_handler() as (_, client):
        assert await ask(client, "Pull", pack(PULL), {"authorization": f"bearer  {TOKEN}"})


async def test_no_token_is_written_into_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_handler() as (_, client):
        await ask(client, "Pull", pack(PULL))
        logging.getLogger("hpack.table").warning("logs are heard")
    assert "logs are heard" in caplog.text
    assert TOKEN not in caplog.text


async def test_a_token_is_verified_once_for_a_connection() -> None:
    async with open_handler() as (port, client):
        for _ in range(5):
            await ask(client, "Pull", pack(PULL))
        assert len(port.hub.peers) == 1
        assert port.hub.peers[0] == Peer("memory", loopback=True, transport="grpc")


BAD_REQUESTS = {
    "noise": ("Pull", b"\xff", "MALFORMED", Status.INVALID_ARGUMENT),
    "no such operation": (
        "Write",
        sync_pb2.WriteCall(ops=[sync_pb2.RemoteOp(name="drop")]).SerializeToString(),
        "MALFORMED",
        Status.INVALID_ARGUMENT,
    ),
    "no operation": ("Query", b"", "MALFORMED", Status.INVALID_ARGUMENT),
    "too large": ("Pull", b"\x0a" + b"x" * 70_000, "TOO_LARGE", Status.RESOURCE_EXHAUSTED),
}


@pytest.mark.parametrize(("method", "data", "code", "status"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_a_bad_request_is_an_error_of_that_call(method: str, data: bytes, code: str, status: Status) -> None:
    async with open_handler(limits=ChannelLimits(frame_bytes=65_536)) as (_, client):
        with pytest.raises(GRPCError) as refused:
            await ask(client, method, data)
        assert (refused.value.status, told(refused.value).code) == (status, code)
        assert unpack(await ask(client, "Pull", pack(PULL)), PullReply).head == 2


async def test_a_call_without_a_message_is_refused() -> None:
    async with open_handler() as (_, client):
        with pytest.raises(GRPCError) as refused:
            async with client.request(PATH + "Pull", Cardinality.STREAM_UNARY, Packed, Packed, metadata=BEARER) as call:
                await call.send_request(end=True)
                await call.recv_message()
        assert told(refused.value).code == "MALFORMED"


async def test_a_method_that_is_not_there_is_unimplemented() -> None:
    async with open_handler() as (_, client):
        with pytest.raises(GRPCError) as refused:
            await ask(client, "Nonsense", b"")
        assert refused.value.status is Status.UNIMPLEMENTED


ERRORS = [
    (RemoteError("späte r", remote_code="RATE_LIMITED", remote_retryable=True, retry_after_s=1.5), 8),
    (RemoteError("no", remote_code="CURSOR_TOO_OLD", remote_retryable=True, info={"floor": "7"}), 11),
    (RemoteError("met", remote_code="CONFLICT", info={"id": "ü"}), 9),  # its number in the table is 0, which means OK
    (RemoteError("a word of the future", remote_code="WHAT_IS_THIS"), 9),
]


@pytest.mark.parametrize(("failure", "status"), ERRORS, ids=[failure.remote_code for failure, _ in ERRORS])
async def test_the_trailer_tells_an_error_exactly(failure: RemoteError, status: int) -> None:
    async with open_handler() as (port, client):
        port.hub.failure = failure
        with pytest.raises(GRPCError) as refused:
            await ask(client, "Pull", pack(PULL))
        info = told(refused.value)
        assert refused.value.status.value == status
        assert refused.value.message == info.message == str(failure).partition(": ")[2]
        assert info == ErrorInfo(
            failure.remote_code,
            info.message,
            failure.remote_retryable,
            int(failure.retry_after_s * 1000),
            failure.info,
        )


@pytest.mark.parametrize("facts", [{}, {"a": "x" * 1_000}, {"a": "x" * 10_000}])
async def test_a_long_error_fits_into_what_other_clients_take(facts: dict[str, str]) -> None:
    async with open_handler() as (port, client):
        port.hub.failure = RemoteError("ü" * 10_000, remote_code="BUSY", remote_retryable=True, info=facts)
        with pytest.raises(GRPCError) as refused:
            await ask(client, "Pull", pack(PULL))
        info = told(refused.value)
        kept = {name: value for name, value in facts.items() if len(value) < 4_000}
        assert (info.code, info.retryable, info.info) == ("BUSY", True, kept)
        assert info.message.startswith("üü")
        assert isinstance(refused.value, CallFailed)
        size = sum(len(value) for value in refused.value.metadata.values())
        assert size * 4 / 3 + 6 * len(refused.value.message or "") < 8192


@dataclass
class Answering(Unasked):
    """A service with an answer that no message can hold."""

    async def open(self, request: OpenRequest) -> OpenReply:
        return OpenReply(b"", b"", "me", 2**70, b"", ())


class Host(TinyHub):
    """The tiny hub with another service."""

    def service(self, principal: Principal) -> SyncService:
        return Answering()


async def test_an_answer_that_cannot_be_sent_is_the_servers_fault(caplog: pytest.LogCaptureFixture) -> None:
    async with open_handler(Host()) as (_, client):
        with pytest.raises(GRPCError) as refused:
            await ask(client, "Open", pack(OpenRequest(b"c", 1, 1, b"", ())))
        assert (refused.value.status, told(refused.value).code) == (Status.INTERNAL, "INTERNAL")
    assert any(record.levelno == logging.ERROR for record in caplog.records)


class Expiring(TinyHub):
    """A hub whose tokens are good for ten seconds."""

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        await super().authenticate(token, peer)
        return Principal("alice", expires_in_s=10.0)


class Waiting(Expiring):
    """One that has a hint now and none ever after."""

    def service(self, principal: Principal) -> SyncService:
        return Quiet(self)


@dataclass
class Quiet(Unasked):
    hub: TinyHub

    @asynccontextmanager
    async def notify(self, request: NotifyRequest) -> AsyncGenerator[AsyncIterator[Hint]]:
        async def hints() -> AsyncGenerator[Hint]:
            yield Hint(request.scopes[0], 1)
            await trio.sleep_forever()

        async with self.hub.working():
            yield hints()


async def test_a_stream_ends_when_its_token_does() -> None:
    hub = Waiting()
    async with open_handler(hub) as (_, client):
        reply = await SyncStub(client).Hello(sync_pb2.HelloRequest(), metadata=BEARER)
        assert reply.expires_in_ms == 10_000
        await trio.sleep(4)
        began = trio.current_time()
        with pytest.raises(GRPCError) as ended:
            async with client.request(PATH + "Notify", FEED, Packed, Packed, metadata=BEARER) as call:
                await call.send_message(Packed(pack(NotifyRequest(("a",)))), end=True)
                assert await call.recv_message()
                await call.recv_message()
                await call.recv_trailing_metadata()
        assert trio.current_time() - began == pytest.approx(6)
        assert (ended.value.status, told(ended.value).code) == (Status.UNAUTHENTICATED, "AUTH_EXPIRED")
        await trio.testing.wait_all_tasks_blocked()
        assert (hub.active, hub.cancelled) == (0, 1)
        await SyncStub(client).Hello(sync_pb2.HelloRequest(), metadata=BEARER)
        assert len(hub.peers) == 2  # verified again, as it had expired


async def test_draining_finishes_calls_ends_streams_and_refuses_the_rest() -> None:
    async with open_handler(limits=ChannelLimits(close_s=0.1)) as (port, client):
        go_on = trio.Event()
        port.hub.on_pull = go_on.wait
        port.hub.hints = 10**9
        heads: list[int] = []
        ends: list[str] = []

        async def call() -> None:
            heads.append(unpack(await ask(client, "Pull", pack(PULL)), PullReply).head)

        async def listen() -> None:
            async with client.request(PATH + "Notify", FEED, Packed, Packed, metadata=BEARER) as stream:
                await stream.send_message(Packed(pack(NotifyRequest(("a",)))), end=True)
                try:
                    while await stream.recv_message() is not None:
                        pass
                    await stream.recv_trailing_metadata()
                except GRPCError as error:
                    ends.append(told(error).code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            nursery.start_soon(listen)
            while port.hub.active < 2:
                await trio.lowlevel.checkpoint()
            port.drain.set()
            while not ends:
                await trio.lowlevel.checkpoint()
            assert ends == ["UNAVAILABLE"]
            with pytest.raises(GRPCError) as refused:
                await ask(client, "Pull", pack(PULL))
            assert refused.value.status is Status.UNAVAILABLE
            go_on.set()
        assert heads == [2]
        with trio.fail_after(5):
            await port.ended.wait()


async def test_the_callers_deadline_stops_the_handler() -> None:
    async with open_handler() as (port, client):
        port.hub.on_pull = trio.sleep_forever
        with pytest.raises(TimeoutError):
            async with client.request(PATH + "Pull", UNARY, Packed, Packed, metadata=BEARER, timeout=3.0) as call:
                await call.send_message(Packed(pack(PULL)), end=True)
                await call.recv_message()
        await trio.sleep(0.1)
        assert (port.hub.active, port.hub.cancelled) == (0, 1)
        assert port.hub.budgets == [pytest.approx(3.0, abs=0.01)]


async def test_a_connection_on_which_nothing_is_called_is_shown_out() -> None:
    async with open_handler(limits=ChannelLimits(handshake_s=5.0)) as (port, client):
        with trio.fail_after(7):
            await client.wait_lost()
        await port.ended.wait()
    async with open_handler(limits=ChannelLimits(handshake_s=5.0)) as (_, client):
        await ask(client, "Pull", pack(PULL))
        await trio.sleep(60)
        assert not client.lost


async def test_guessing_tokens_ends_the_connection() -> None:
    async with open_handler() as (port, client):
        for number in range(calls.REFUSED_MAX):
            if number == calls.REFUSED_MAX // 2:
                await ask(client, "Pull", pack(PULL))  # a good one makes it honest again
            with pytest.raises(GRPCError) as refused:
                await ask(client, "Pull", pack(PULL), {"authorization": f"Bearer {number}"})
            assert told(refused.value).code == "UNAUTHENTICATED"
        await trio.sleep(5)
        assert not client.lost
        for number in range(calls.REFUSED_MAX // 2):
            with pytest.raises(GRPCError) as refused:
                await ask(client, "Pull", pack(PULL), {"authorization": f"Bearer {number}"})
            assert told(refused.value).code == "UNAUTHENTICATED"  # the last one is answered, too
        with trio.fail_after(2):
            await client.wait_lost()
        assert port.ended.is_set() or not port.hub.active


@pytest.mark.parametrize("loopback", [True, False])
async def test_a_sender_from_elsewhere_is_held_to_its_rate(loopback: bool) -> None:
    limits = ChannelLimits(bytes_per_s=100_000)
    async with open_handler(limits=limits, loopback=loopback) as (port, client):
        await ask(client, "Pull", pack(PULL))
        began = trio.current_time()
        codes: list[str] = []
        for _ in range(10):
            try:
                await ask(client, "Push", pack(PushRequest(b"c", 1, (Mutation(1, b"x" * 100_000, b""),), b"")))
                codes.append("")
            except GRPCError as error:
                codes.append(told(error).code)
        took = trio.current_time() - began
        if loopback:
            assert codes == [""] * 10
            assert took == pytest.approx(0, abs=0.1)
        else:
            assert took > 5
            assert set(codes) <= {"", "RATE_LIMITED"}
        await trio.sleep(20)
        await ask(client, "Pull", pack(PULL))
        assert len(port.hub.applied) == codes.count("")


async def test_an_answer_that_is_not_taken_is_not_called_undone() -> None:
    """A caller who reads nothing gets no answer; told that the server is overloaded, it would write a second time."""
    limits = ChannelLimits(slow_s=2.0)
    async with open_handler(limits=limits, client_limits=GrpcLimits(stream_window=65_535)) as (_, client):
        async with client.request(PATH + "Pull", UNARY, Packed, Packed, metadata=BEARER) as call:
            large = msgspec.structs.replace(PULL, max_bytes=1_000_000)
            await call.send_message(Packed(pack(large)), end=True)
            await trio.sleep(10)
            with pytest.raises(CallFailed) as lost:
                await call.recv_message()
            assert told(lost.value).code == "UNAVAILABLE"


async def test_more_calls_than_allowed_are_refused() -> None:
    limits = ChannelLimits(calls=3)
    async with open_handler(limits=limits, client_limits=GrpcLimits(calls=10)) as (port, client):
        port.hub.on_pull = trio.sleep_forever
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, client, "Pull", pack(PULL))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(GRPCError) as refused:
                await ask(client, "Pull", pack(PULL))
            assert refused.value.status is Status.RESOURCE_EXHAUSTED
            nursery.cancel_scope.cancel()
        await trio.sleep(0.1)
        assert (port.hub.active, port.hub.cancelled) == (0, 3)


def test_it_speaks_http_2_only() -> None:
    handler = GrpcHandler()
    assert handler.name == "grpc"
    assert handler.speaks(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert not handler.speaks(b"POST /atoma.sync.v1.Sync/Open HTTP/1.1\r\n\r\n")


REQUEST, RESPONSE = (message_class(f"grpc.health.v1.HealthCheck{kind}") for kind in ("Request", "Response"))


async def health(client: GrpcClient, service: str) -> int:
    async with client.request("/grpc.health.v1.Health/Check", UNARY, REQUEST, RESPONSE) as call:
        await call.send_message(REQUEST(service=service), end=True)
        reply = await call.recv_message()
    return status_in(reply)


def status_in(reply: object) -> int:
    """The state of service that ``reply`` tells; its class is made at run time."""
    found: int = reply.status  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    return found


async def test_health_is_told_without_a_token() -> None:
    async with open_handler() as (port, client):
        for service in ("", "atoma.sync.v1.Sync", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"):
            assert await health(client, service) == 1
        with pytest.raises(GRPCError) as refused:
            await health(client, "nobody")
        assert refused.value.status is Status.NOT_FOUND
        assert port.hub.peers == []


@pytest.mark.parametrize(("service", "states"), [("", [1, 2]), ("nobody", [3])])
async def test_health_is_watched_until_the_server_drains(service: str, states: list[int]) -> None:
    async with open_handler(limits=ChannelLimits(close_s=0.1)) as (port, client):
        seen: list[int] = []
        with pytest.raises(GRPCError) as ended:
            async with client.request("/grpc.health.v1.Health/Watch", FEED, REQUEST, RESPONSE) as call:
                await call.send_message(REQUEST(service=service), end=True)
                while (reply := await call.recv_message()) is not None:
                    seen.append(status_in(reply))
                    port.drain.set()
                await call.recv_trailing_metadata()
        assert seen == states
        assert ended.value.status is Status.UNAVAILABLE


PACKAGES = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
NOTHING, UNASKED = (5, "not found"), (3, "nothing is asked")
SYNC_FILE = "atoma_transports/grpc/v1/sync.proto"
QUESTIONS: list[tuple[dict[str, Any], str | tuple[int, str]]] = [
    ({"file_containing_symbol": "atoma.sync.v1.Sync"}, SYNC_FILE),
    ({"file_containing_symbol": ".atoma.sync.v1.Sync"}, SYNC_FILE),
    ({"file_containing_symbol": "atoma.sync.v1.Sync.Pull"}, SYNC_FILE),
    ({"file_containing_symbol": "atoma.sync.v1.PullRequest.scope"}, SYNC_FILE),
    ({"file_containing_symbol": "atoma.sync.v1.ErrorInfo.InfoEntry.key"}, SYNC_FILE),
    ({"file_containing_symbol": "grpc.health.v1.HealthCheckResponse.ServingStatus"}, "grpc/health/v1/health.proto"),
    ({"file_by_filename": SYNC_FILE}, SYNC_FILE),
    ({"file_containing_symbol": "google.protobuf.FileDescriptorProto"}, NOTHING),
    ({"file_containing_symbol": ""}, NOTHING),
    ({"file_by_filename": "google/protobuf/descriptor.proto"}, NOTHING),
    ({"file_containing_extension": {"containing_type": "atoma.sync.v1.Op", "extension_number": 1}}, NOTHING),
    ({"all_extension_numbers_of_type": "nobody"}, NOTHING),
    ({"host": "hub"}, UNASKED),
]


@pytest.mark.parametrize("package", PACKAGES)
async def test_reflection_tells_what_is_answered_here_and_nothing_else(package: str) -> None:
    request, response = (message_class(f"{package}.ServerReflection{kind}") for kind in ("Request", "Response"))
    path = f"/{package}.ServerReflection/ServerReflectionInfo"
    async with (
        open_handler() as (port, client),
        client.request(path, Cardinality.STREAM_STREAM, request, response) as call,
    ):
        for question, answer in QUESTIONS:
            asked = request(**question)
            await call.send_message(asked)
            reply: Any = await call.recv_message()
            assert reply.original_request == asked
            if isinstance(answer, str):
                (data,) = reply.file_descriptor_response.file_descriptor_proto
                assert FileDescriptorProto.FromString(data).name == answer, question
            else:
                assert (reply.error_response.error_code, reply.error_response.error_message) == answer, question
        await call.send_message(request(all_extension_numbers_of_type="atoma.sync.v1.Hint"), end=True)
        reply = await call.recv_message()
        assert reply.all_extension_numbers_response.base_type_name == "atoma.sync.v1.Hint"
        assert await call.recv_message() is None
        assert port.hub.peers == []


@pytest.mark.parametrize(
    "path", ["grpc.health.v1.Health/Check", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
)
async def test_whoever_has_not_said_who_they_are_sends_small_messages(path: str) -> None:
    name = "grpc.health.v1.HealthCheckRequest" if "health" in path else "grpc.reflection.v1.ServerReflectionRequest"
    field = "service" if "health" in path else "host"
    request = message_class(name)
    async with open_handler() as (_, client):
        for size, status in ((60_000, Status.OK), (70_000, Status.RESOURCE_EXHAUSTED)):
            seen = Status.OK
            try:
                async with client.request(f"/{path}", Cardinality.STREAM_STREAM, request, Packed) as call:
                    await call.send_message(request(**{field: "x" * size}), end=True)
                    while await call.recv_message() is not None:
                        pass
                    await call.recv_trailing_metadata()
            except GRPCError as error:
                seen = Status.OK if error.status is Status.NOT_FOUND else error.status  # no such service, but read
            assert seen is status
