"""grpcurl, where it is installed: a tool in another language, which knows a server only by what it tells of itself."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import msgspec
import pytest
import trio

from atoma.testing.conformance import TOKEN, TinyHub
from atoma_transports.serving import open_server

pytest.importorskip("grpclib")
GRPCURL = shutil.which("grpcurl")
pytestmark = [
    pytest.mark.xdist_group("machine"),
    pytest.mark.skipif(GRPCURL is None, reason="needs the program grpcurl"),
]


async def grpcurl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [GRPCURL or "", "-plaintext", "-max-time", "20", *arguments]
    return await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)


async def test_it_finds_describes_and_calls_the_methods() -> None:
    hub = TinyHub()
    hub.hints = 2
    bearer = ["-H", f"authorization: Bearer {TOKEN}"]
    async with open_server(hub, "127.0.0.1:0") as address:
        listed = await grpcurl(address, "list")
        assert b"atoma.sync.v1.Sync\n" in listed.stdout
        described = await grpcurl(address, "describe", "atoma.sync.v1.PullRequest")
        assert b"optional int64 max_bytes = 5;" in described.stdout
        request = {"scope": "main", "client_id": base64.b64encode(b"c").decode(), "max_bytes": 4}
        pulled = await grpcurl(*bearer, "-d", json.dumps(request), address, "atoma.sync.v1.Sync/Pull")
        rows = base64.b64decode(json.loads(pulled.stdout)["stores"][0]["rows"])
        assert msgspec.msgpack.decode(rows) == [[1, "id", "üü", b"\x00\xff", 1.5, None, -(2**63)]]
        hints = await grpcurl(*bearer, "-d", '{"scopes": ["main"]}', address, "atoma.sync.v1.Sync/Notify")
        assert (hints.returncode, hints.stdout.count(b'"scope": "main"')) == (0, 2)
        health = await grpcurl(address, "grpc.health.v1.Health/Check")
        assert json.loads(health.stdout) == {"status": "SERVING"}
        refused = await grpcurl("-d", "{}", address, "atoma.sync.v1.Sync/Hello")
        assert b"Code: Unauthenticated" in refused.stderr
