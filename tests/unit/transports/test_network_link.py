"""The link: what is cut breaks at once, what is mute breaks for nobody, and a repair helps."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from atoma.testing.network_link import NetworkLink, open_network_link


async def echo(stream: trio.SocketStream) -> None:
    async with stream:
        try:
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass


@asynccontextmanager
async def echoing() -> AsyncGenerator[NetworkLink]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        async with open_network_link(listeners[0].socket.getsockname()[1]) as link:
            yield link
        nursery.cancel_scope.cancel()


async def said(stream: trio.SocketStream, text: bytes) -> bytes:
    await stream.send_all(text)
    return bytes(await stream.receive_some(100))


async def ended(stream: trio.SocketStream) -> bool:
    try:
        with trio.fail_after(60):
            return not await stream.receive_some(100)
    except trio.BrokenResourceError:
        return True


async def test_bytes_pass_until_the_cable_is_cut() -> None:
    async with echoing() as link, await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
        assert await said(stream, b"hello") == b"hello"
        assert (link.state, link.connections) == ("whole", 1)
        link.cut()
        assert await ended(stream)
        async with await trio.open_tcp_stream("127.0.0.1", link.port) as second:
            assert await ended(second)
        assert (link.state, link.connections) == ("cut", 0)
        link.repair()
        async with await trio.open_tcp_stream("127.0.0.1", link.port) as third:
            assert await said(third, b"again") == b"again"


async def test_a_mute_cable_holds_bytes_back_and_tells_nobody() -> None:
    async with echoing() as link, await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
        assert await said(stream, b"hello") == b"hello"
        link.mute()
        with trio.move_on_after(0.1) as patience:
            await said(stream, b"anybody?")
        assert patience.cancelled_caught
        link.repair()
        assert await stream.receive_some(100) == b"anybody?"


async def test_a_mute_cable_does_not_tell_that_one_side_has_gone() -> None:
    heard, gone = trio.Event(), trio.Event()

    async def listen(stream: trio.SocketStream) -> None:
        async for _ in stream:
            heard.set()
        gone.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, listen, [listener])
        async with open_network_link(listener.socket.getsockname()[1]) as link:
            async with await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
                await stream.send_all(b"hello")
                await heard.wait()
                link.mute()
            with trio.move_on_after(0.1):
                await gone.wait()
            assert not gone.is_set()
            link.repair()
            with trio.fail_after(60):
                await gone.wait()
        nursery.cancel_scope.cancel()


async def test_a_truncated_connection_ends_inside_a_message_once() -> None:
    async with echoing() as link:
        for direction, sent, answered in (("to-client", b"12345", b"123"), ("to-server", b"12345", b"123")):
            link.truncate(direction, 3)  # type: ignore[arg-type]
            async with await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
                await stream.send_all(sent)
                got = b""
                with trio.fail_after(60):
                    try:
                        while data := await stream.receive_some(100):
                            got += data
                    except trio.BrokenResourceError:
                        pass
                assert got in (answered, b"")  # what was under way when the connection ended may be lost
                assert await ended(stream)
            async with await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
                assert await said(stream, b"whole") == b"whole"
        link.truncate("to-server", 3)
        link.repair()
        async with await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
            assert await said(stream, b"12345") == b"12345"


async def test_a_slow_cable_brings_everything_later() -> None:
    async with echoing() as link, await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
        link.slow(delay_s=0.05)
        began = trio.current_time()
        assert await said(stream, b"hello") == b"hello"
        assert trio.current_time() - began >= 0.1  # there and back
        link.slow(bytes_per_s=1000)
        began = trio.current_time()
        assert await said(stream, b"x" * 100) == b"x" * 100
        assert trio.current_time() - began >= 0.2
        link.repair()
        assert (link.delay_s, link.bytes_per_s) == (0, 0)


async def test_a_cable_can_be_moved_to_another_server() -> None:
    async with echoing() as first, open_network_link(0) as link:
        async with await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
            assert await ended(stream)
        link.target_port = first.port
        async with await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
            assert await said(stream, b"hello") == b"hello"
            link.disconnect()
            assert await ended(stream)
        async with await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
            assert await said(stream, b"again") == b"again"


async def test_an_end_on_one_side_ends_the_other() -> None:
    async with echoing() as link:
        async with await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
            assert await said(stream, b"hello") == b"hello"
        with trio.fail_after(60):
            while link.connections:
                await trio.sleep(0.01)
        assert link.connections == 0


async def test_a_server_that_is_not_there_ends_the_connection() -> None:
    async with open_network_link(1) as link, await trio.open_tcp_stream("127.0.0.1", link.port) as stream:
        assert await ended(stream)


async def test_errors_in_the_block_come_out_bare() -> None:
    with pytest.raises(KeyError):
        async with open_network_link(1):
            raise KeyError
