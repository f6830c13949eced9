"""The cable: what is cut breaks at once, what is mute breaks for nobody, and mending helps."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from atoma.testing.cable import Cable, open_cable


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        try:
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass


@asynccontextmanager
async def echoing() -> AsyncGenerator[Cable]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        async with open_cable(listeners[0].socket.getsockname()[1]) as cable:
            yield cable
        nursery.cancel_scope.cancel()


async def said(stream: trio.SocketStream, text: bytes) -> bytes:
    await stream.send_all(text)
    return bytes(await stream.receive_some(100))


async def ended(stream: trio.SocketStream) -> bool:
    try:
        with trio.fail_after(2):
            return not await stream.receive_some(100)
    except trio.BrokenResourceError:
        return True


async def test_bytes_pass_until_the_cable_is_cut() -> None:
    async with echoing() as cable, await trio.open_tcp_stream("127.0.0.1", cable.port) as stream:
        assert await said(stream, b"hello") == b"hello"
        assert (cable.state, cable.connections) == ("whole", 1)
        cable.cut()
        assert await ended(stream)
        async with await trio.open_tcp_stream("127.0.0.1", cable.port) as second:
            assert await ended(second)
        assert (cable.state, cable.connections) == ("cut", 0)
        cable.mend()
        async with await trio.open_tcp_stream("127.0.0.1", cable.port) as third:
            assert await said(third, b"again") == b"again"


async def test_a_mute_cable_holds_bytes_back_and_tells_nobody() -> None:
    async with echoing() as cable, await trio.open_tcp_stream("127.0.0.1", cable.port) as stream:
        assert await said(stream, b"hello") == b"hello"
        cable.mute()
        with trio.move_on_after(0.1) as patience:
            await said(stream, b"anybody?")
        assert patience.cancelled_caught
        cable.mend()
        assert await stream.receive_some(100) == b"anybody?"


async def test_an_end_on_one_side_ends_the_other() -> None:
    async with echoing() as cable:
        async with await trio.open_tcp_stream("127.0.0.1", cable.port) as stream:
            assert await said(stream, b"hello") == b"hello"
        with trio.fail_after(2):
            while cable.connections:
                await trio.sleep(0.01)
        assert cable.connections == 0


async def test_a_server_that_is_not_there_ends_the_connection() -> None:
    async with open_cable(1) as cable, await trio.open_tcp_stream("127.0.0.1", cable.port) as stream:
        assert await ended(stream)


async def test_errors_in_the_block_come_out_bare() -> None:
    with pytest.raises(KeyError):
        async with open_cable(1):
            raise KeyError
