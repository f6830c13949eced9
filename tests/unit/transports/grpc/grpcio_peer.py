"""gRPC's own library as the other side, in a process of its own: a server of the echo service, or a client of one.

grpcio_peer.py server [CERTIFICATE]            prints its port, serves until its input ends
grpcio_peer.py client ADDRESS [CERTIFICATE]    calls everything, prints what it saw as JSON
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]

CANCELLED: list[str] = []
BIG = 3_000_000


def until_cancelled(context: Any, name: str) -> None:
    """Wait as a handler does that has nothing to send."""
    over = threading.Event()
    context.add_callback(over.set)
    over.wait(60)
    CANCELLED.append(name)


def unary(request: bytes, context: Any) -> bytes:
    return request


def count(request: bytes, context: Any) -> Iterator[bytes]:
    number, _, size = request.partition(b" ")
    i = 0
    if number == b"inf":
        context.add_callback(lambda: CANCELLED.append("count"))
    while context.is_active() and (number == b"inf" or i < int(number)):
        yield b"%d" % i + b"." * int(size or b"0")
        i += 1


def join(requests: Iterator[bytes], context: Any) -> bytes:
    return b"".join(requests)


def chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield from requests


def slow(request: bytes, context: Any) -> bytes:
    until_cancelled(context, f"timed {context.time_remaining():.2f}" if request else "slow")
    return b""


def cancelled(request: bytes, context: Any) -> bytes:
    """What was cancelled so far."""
    return json.dumps(CANCELLED).encode()


def fail(request: bytes, context: Any) -> bytes:
    sent = {key: value.hex() if isinstance(value, bytes) else value for key, value in context.invocation_metadata()}
    context.set_trailing_metadata((("atoma-error-bin", bytes(range(256))), ("seen", json.dumps(sent))))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such row: 50 % of «ü»")
    raise AssertionError("abort raises")


def server(certificate: str) -> None:
    kinds: dict[str, Any] = {
        "unary": grpc.unary_unary_rpc_method_handler(unary),
        "count": grpc.unary_stream_rpc_method_handler(count),
        "join": grpc.stream_unary_rpc_method_handler(join),
        "chat": grpc.stream_stream_rpc_method_handler(chat),
        "slow": grpc.unary_unary_rpc_method_handler(slow),
        "cancelled": grpc.unary_unary_rpc_method_handler(cancelled),
        "fail": grpc.unary_unary_rpc_method_handler(fail),
    }
    options = [("grpc.max_receive_message_length", 8_000_000), ("grpc.max_send_message_length", 8_000_000)]
    serving = grpc.server(futures.ThreadPoolExecutor(16), options=options)
    serving.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", kinds),))
    if certificate:
        pem = Path(certificate).read_bytes()
        port = serving.add_secure_port("localhost:0", grpc.ssl_server_credentials([(pem, pem)]))
    else:
        port = serving.add_insecure_port("127.0.0.1:0")
    serving.start()
    print(port, flush=True)
    for line in sys.stdin:
        if line.strip() == "stop":
            stopped = serving.stop(30)  # politely: GOAWAY, and the calls in flight are answered
            print("stopping", flush=True)
            stopped.wait()
            print("stopped", flush=True)
    serving.stop(0).wait()


def failure(call: Callable[[], object]) -> dict[str, Any]:
    """How a call failed."""
    began = time.monotonic()
    try:
        call()
    except grpc.RpcError as error:
        found: Any = error
        trailers = {key: value.hex() if isinstance(value, bytes) else value for key, value in found.trailing_metadata()}
        took = time.monotonic() - began
        return {"code": found.code().name, "details": found.details(), "trailers": trailers, "took": took}
    return {"code": "OK"}


def client(address: str, certificate: str) -> None:
    options = [("grpc.max_receive_message_length", 8_000_000)]
    if certificate:
        credentials = grpc.ssl_channel_credentials(Path(certificate).read_bytes())
        channel = grpc.secure_channel(address, credentials, options=options)
    else:
        channel = grpc.insecure_channel(address, options=options)
    with channel:
        one, many = channel.unary_unary, channel.unary_stream
        seen: dict[str, Any] = {"unary": one("/test.Echo/unary")(b"hello").decode()}
        big = b"0123456789" * (BIG // 10)
        seen["big"] = one("/test.Echo/unary")(big) == big
        seen["count"] = [text.decode() for text in many("/test.Echo/count")(b"500")]
        seen["heavy"] = sum(len(text) for text in many("/test.Echo/count")(b"30 100000"))
        seen["join"] = channel.stream_unary("/test.Echo/join")(iter([b"a", b"b", b"c"])).decode()
        seen["chat"] = [text.decode() for text in channel.stream_stream("/test.Echo/chat")(iter([b"1", b"2"]))]
        with futures.ThreadPoolExecutor(16) as pool:
            texts = [b"%d" % i for i in range(200)]
            seen["many"] = list(pool.map(one("/test.Echo/unary"), texts)) == texts
        metadata = (("authorization", "Bearer abc"), ("blob-bin", bytes(range(256))))
        seen["fail"] = failure(lambda: one("/test.Echo/fail")(b"", metadata=metadata))
        seen["unknown"] = failure(lambda: one("/test.Echo/unknown")(b""))
        seen["deadline"] = failure(lambda: one("/test.Echo/slow")(b"", timeout=0.5))
        seen["gzip"] = failure(lambda: one("/test.Echo/unary")(b"x" * 1000, compression=grpc.Compression.Gzip))
        seen["too big"] = failure(lambda: one("/test.Echo/unary")(b"x" * 6_000_000))
        slow = one("/test.Echo/slow").future(b"")
        time.sleep(0.3)
        slow.cancel()
        stream = many("/test.Echo/count")(b"inf 1000")
        next(stream)
        stream.cancel()
        mute = many("/test.Echo/mute")(b"")
        next(mute)
        mute.cancel()
        seen["after"] = one("/test.Echo/unary")(b"after").decode()
        # A call in flight while the server drains, for which the test gives the sign.
        answers: queue.Queue[bytes | None] = queue.Queue()
        talk = channel.stream_stream("/test.Echo/chat")(iter(answers.get, None))
        answers.put(b"before")
        seen["before"] = next(talk).decode()
        print(json.dumps(seen), flush=True)
        sys.stdin.readline()
        late = failure(lambda: one("/test.Echo/unary")(b"late"))
        answers.put(b"in flight")
        in_flight = next(talk).decode()
        answers.put(None)
        print(json.dumps({"late": late, "in flight": in_flight, "rest": len(list(talk))}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        server(sys.argv[2] if len(sys.argv) > 2 else "")
    else:
        client(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
