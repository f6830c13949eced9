"""A transport of your own: a UNIX domain socket, for a hub in another program on the same machine."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from atoma import AllowLoopback, Schema, StoreSpec, Sync, open_client, open_hub
from atoma.errors import ConnectFailed, ProtocolError
from atoma.plugins import Plugin
from atoma.ports import Channel, Peer, ServiceHost
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.calls import ChannelLimits
from atoma_transports.frames import open_channel, serve_pipe
from atoma_transports.remote import Remote

LIMITS = ChannelLimits()


class StreamPipe:
    """Whole messages on a byte stream, each with its length in front."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._data = bytearray()

    async def send(self, message: bytes) -> None:
        await self._stream.send_all(len(message).to_bytes(4, "big") + message)

    async def receive(self) -> bytes:
        await self._fill(4)
        size = int.from_bytes(self._data[:4], "big")
        if size > LIMITS.frame_bytes:
            raise ProtocolError(f"a message of {size} bytes; the limit is {LIMITS.frame_bytes}")
        await self._fill(4 + size)
        message = bytes(self._data[4 : 4 + size])
        del self._data[: 4 + size]
        return message

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _fill(self, size: int) -> None:
        while len(self._data) < size:  # a cancelled receive loses nothing: what has come is kept
            more = await self._stream.receive_some(65_536)
            if not more:
                raise trio.EndOfChannel
            self._data += more


class UnixTransport:
    """What ``Remote`` takes: a name and ``connect``. Calls, deadlines and cancelling are done above the pipe.

    Args:
        path: Of the socket.
        token: Sent in the first message.
    """

    name = "unix"

    def __init__(self, path: Path, token: str = "") -> None:
        self._path = path
        self._token = token

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Channel]:
        try:
            stream = await trio.open_unix_socket(str(self._path))
        except OSError as error:
            raise ConnectFailed(f"nobody listens on {self._path.name}: {error.strerror}") from error
        async with open_channel(StreamPipe(stream), token=self._token, limits=LIMITS) as channel:
            yield channel


async def serve_unix(host: ServiceHost, path: Path, *, task_status: trio.TaskStatus[None]) -> None:
    """Serve ``host`` on a socket until cancelled; the file's permissions decide who may connect."""
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    await trio.Path(path).chmod(0o600)
    listening.listen(64)
    peer = Peer("unix", loopback=True, transport="unix")

    async def connected(stream: trio.SocketStream) -> None:
        await serve_pipe(StreamPipe(stream), host, peer, limits=LIMITS)

    serving = functools.partial(trio.serve_listeners, connected, [trio.SocketListener(listening)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serving)
        task_status.started()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    id: str
    volts: float


SAMPLES = StoreSpec("samples", Sample)
SCHEMA = Schema(SAMPLES)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "hub.sock")
        async with (
            open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=AllowLoopback()) as hub,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(functools.partial(serve_unix, hub, path))
            plugins: list[Plugin] = [
                LocalExecution(SQLiteEngine(":memory:")),
                Remote(UnixTransport(path)),
                Sync(stores=[SAMPLES]),
            ]
            async with open_client(SCHEMA, plugins=plugins, policy="sync-queue") as client:
                handle = await client.store(SAMPLES).insert(Sample(id="s", volts=1.5))
                with trio.fail_after(10):
                    print("accepted as number", await handle.accepted())
                page = await client.store(SAMPLES).query(policy="direct-remote")
                print([sample.volts for sample in page], page.meta.path[0].node)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
