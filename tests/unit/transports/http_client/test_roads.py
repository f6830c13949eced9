"""What lies between the transport and the hub: TLS with a CA of one's own, and proxies."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio

from atoma.errors import ChannelBroken, ConnectFailed, ProtocolError
from atoma.testing.queries import rows_of
from atoma_transports.http.client import HttpTransport
from atoma_transports.protocol import OpsReply, QueryCall, RemoteOp
from atoma_transports.protocol.plans import encode_query
from tests.certificates import client_context, make_certificate, server_context
from tests.unit.transports.http_client.h11_server import open_scripted
from tests.unit.transports.proxying import ASKING, open_proxy

QUERY = QueryCall((RemoteOp(0, "query", "s", query=encode_query(rows_of("s"))),))


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    """The server's context, and one that trusts it."""
    certificate = make_certificate(tmp_path)
    return server_context(certificate), client_context(certificate)


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


async def test_tls_with_a_ca_of_ones_own(contexts: Contexts) -> None:
    theirs, trusting = contexts
    theirs.set_alpn_protocols(["h2", "http/1.1"])
    trusting.set_alpn_protocols(["h2"])  # as another transport that shares the context would
    async with open_scripted(ssl_context=theirs) as server:
        async with HttpTransport(server.url, ssl_context=trusting).connect() as channel:
            for _ in range(2):
                assert isinstance(await channel.call("query", QUERY), OpsReply)
            assert server.connections == 1
            server.hang_up()
            await trio.sleep(0.05)
            assert isinstance(await channel.call("query", QUERY), OpsReply)
        for url, context in (
            (server.url, None),  # an unknown CA
            (f"https://127.0.0.1:{server.port}", trusting),  # another name than the certificate's
        ):
            with pytest.raises(ConnectFailed, match="certificate"):
                async with HttpTransport(url, ssl_context=context).connect():
                    raise AssertionError("trusted a stranger")
        with pytest.raises((ConnectFailed, ProtocolError)):
            async with HttpTransport(f"http://localhost:{server.port}").connect():
                raise AssertionError("plain text to a TLS port")


async def test_a_server_that_never_shakes_hands_is_given_up() -> None:
    from atoma_transports.calls import ChannelLimits

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    transport = HttpTransport(f"https://localhost:{port}", limits=ChannelLimits(handshake_s=0.2))
    with pytest.raises(ConnectFailed, match=r"did not answer|no TLS handshake"):
        async with transport.connect():
            raise AssertionError("nobody was there")
    await listeners[0].aclose()


async def test_a_proxy_is_used_with_its_password(contexts: Contexts) -> None:
    theirs, trusting = contexts
    async with open_scripted(ssl_context=theirs) as server, open_proxy() as proxy:
        async with HttpTransport(server.url, ssl_context=trusting, proxy=proxy.road, token="t").connect() as channel:
            for _ in range(2):
                assert isinstance(await channel.call("query", QUERY), OpsReply)
        assert proxy.asked == [f"CONNECT localhost:{server.port} HTTP/1.1"]
        assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer t"}
        assert all("proxy-authorization" not in asked.headers for asked in server.asked)
        with pytest.raises(ConnectFailed, match=r"proxy refused: 407"):
            async with HttpTransport(
                server.url, ssl_context=trusting, proxy=f"http://localhost:{proxy.port}"
            ).connect():
                raise AssertionError("went past the proxy")
        async with HttpTransport(server.url, ssl_context=trusting, proxy=proxy.road).connect() as channel:
            server.hang_up()
            proxy.answer = ASKING
            await trio.sleep(0.05)
            with pytest.raises(ChannelBroken, match="not sent") as broken:
                await channel.call("query", QUERY)
            assert broken.value.maybe_sent is False
    async with open_scripted() as plain, open_proxy() as proxy:
        async with HttpTransport(plain.url, proxy=proxy.road).connect() as channel:
            assert isinstance(await channel.call("query", QUERY), OpsReply)
        assert proxy.asked[0] == f"POST {plain.url}/v1/cancel HTTP/1.1"
