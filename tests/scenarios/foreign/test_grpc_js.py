"""A program made with @grpc/grpc-js and the ``.proto`` file calls a hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

pytest.importorskip("grpclib")

from atoma.contracts.execution import OperationContext, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.hub import StaticTokenVerifier, open_hub
from atoma.ports import Principal
from atoma_stores.sqlite.hub_store import SQLiteHubStore
from atoma_transports.grpc import v1
from atoma_transports.serving import open_server
from tests.npm import beside, node_command
from tests.unit.hub.kit import SCHEMA, card

pytestmark = pytest.mark.xdist_group("machine")
PACKAGES = {"@grpc/grpc-js": "1.14.7", "@grpc/proto-loader": "0.8.1", "@msgpack/msgpack": "3.1.3"}
TOKEN = "token-of-everybody"


async def test_it_calls_reads_and_listens(tmp_path: Path) -> None:
    program = beside(PACKAGES, Path(__file__).parent / "node" / "grpc_client.mjs", tmp_path)
    proto = Path(v1.__file__).with_name("sync.proto")
    verifier = StaticTokenVerifier({TOKEN: "ada"})
    async with open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=verifier) as hub:
        op = Op("create", "cards", "1", {**card("tea"), "board": "main"}, scope="main")
        await hub.service(Principal("ada")).write(WriteRequest((op,), WriteOptions(), OperationContext("t"), "k"))
        async with open_server(hub, "127.0.0.1:0") as address:
            with trio.fail_after(60):
                ran = await trio.run_process([*node_command(program), address, str(proto), TOKEN], capture_stdout=True)
    told: dict[str, Any] = json.loads(ran.stdout)
    assert told["principal"] == "ada"
    columns = ["id", "title", "lane", "rank", "done", "board"]
    assert told["stores"] == [["cards", columns, [[1, "1", "tea", "todo", 0, 0, "main"]]]]
    assert told["hint"] == {"scope": "main", "head": 1}
    assert told["refused"]["error"]["code"] in ("INVALID", "MALFORMED", "PERMISSION_DENIED")
    assert (told["stranger"]["code"], told["stranger"]["error"]["code"]) == (16, "UNAUTHENTICATED")
