"""``atoma demo``: one process, one ``trio.run``, a hub, two devices, and a page with both boards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path

import msgspec
import trio

from atoma.demo.board import Board
from atoma.demo.cards import CARD_SCHEMA
from atoma.demo.devices import open_device
from atoma.demo.wiring import SPOKEN, HubServer, TransportName, open_hub_server
from atoma.errors import AtomaError, ConfigurationError
from atoma.hub import Hub
from atoma.inspector import Inspected, Inspection, add_inspector
from atoma.ports.tasks import open_tasks
from atoma_transports.http import EventSender, HttpError, HttpHandler, HttpRequest, HttpResponse, json_response

DEVICES = {"a": "Laptop", "b": "Phone"}
SETTLE_S = 5.0

Command = Callable[[Board, dict[str, object]], Awaitable[None]]


class HubState(msgspec.Struct, frozen=True):
    """The hub as the page shows it: the last sequence that a device knows of, and where the files are."""

    seq: int
    directory: str


class Stage:
    """The boards, once they are there; requests that come earlier wait.

    Args:
        directory: Where the files are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._boards: dict[str, Board] = {}
        self._hub: Hub | None = None
        self._ready = trio.Event()

    def show(self, boards: Sequence[Board], hub: Hub) -> None:
        """Let the requests in."""
        self._hub = hub
        self._boards = {board.key: board for board in boards}
        self._ready.set()

    async def boards(self) -> dict[str, Board]:
        """The boards by key."""
        await self._ready.wait()
        return self._boards

    async def hub(self) -> Hub:
        """The hub for the inspector."""
        await self._ready.wait()
        assert self._hub is not None
        return self._hub

    async def inspected(self) -> list[Inspected]:
        """The devices for the inspector."""
        return [board.inspected for board in (await self.boards()).values()]


async def run_page(
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    directory: Path,
    transport: TransportName = "websocket",
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the demo until cancelled.

    Args:
        host: ``127.0.0.1`` or ``localhost``.
        port: Port of the page and of the hub; 0 takes a free one.
        directory: Where the three database files are, or will be.
        transport: What the devices speak with the hub.
        task_status: Gets the page's address once both boards are up.

    Raises:
        ConfigurationError: ``host`` is not a loopback address, or the port is taken.
        StoreError: A file cannot be opened.
    """
    if host not in ("127.0.0.1", "localhost"):
        raise ConfigurationError(
            f"the demo page is for this machine only: host has to be 127.0.0.1 or localhost, not {host!r}"
        )
    fresh = not any((directory / f"{name}.db").exists() for name in ("hub", "laptop", "phone"))
    stage = Stage(directory)
    pages = demo_pages(stage)
    names = tuple(DEVICES.values())
    opening = open_hub_server(
        CARD_SCHEMA, directory / "hub.db", names, address=f"{host}:{port}", pages=pages, transport=transport
    )
    async with opening as hub, open_tasks() as nursery:
        boards = [await nursery.start(_hold_device, key, directory, hub) for key in DEVICES]
        if fresh:
            for board in boards:
                await board.seed()
        await _settle(boards)
        for board in boards:
            await nursery.start(board.follow)
        stage.show(boards, hub.hub)
        address = f"http://{host}:{hub.port}/"
        print(
            f"Atoma demo: {address}   inspector: {address}inspector   files: {directory}   "
            f"devices and hub: {SPOKEN[transport]}   Ctrl-C stops",
            flush=True,
        )
        task_status.started(address)
        await trio.sleep_forever()


async def _hold_device(key: str, directory: Path, hub: HubServer, task_status: trio.TaskStatus[Board]) -> None:
    """Keep a device open until cancelled; in a task of its own, so that both close at the same time."""
    eye = Inspection()
    path = directory / f"{DEVICES[key].lower()}.db"
    async with open_device(CARD_SCHEMA, path, DEVICES[key], hub, plugins=[eye]) as device:
        task_status.started(Board(key, device, eye))
        await trio.sleep_forever()


async def _settle(boards: Sequence[Board]) -> None:
    """Let both devices have everything before the page is announced, but do not insist on it."""
    with trio.move_on_after(SETTLE_S):
        for board in (*boards, *boards[:-1]):
            await board.wait_idle()


def demo_pages(stage: Stage) -> HttpHandler:
    """The page, its files, its commands, its stream, and the inspector."""
    handler = HttpHandler()
    page = resources.files("atoma.demo").joinpath("static", "index.html").read_bytes()
    handler.get("/", partial(_page, page))
    handler.folder("/static/demo/", "atoma.demo", "static")
    handler.events("/api/events", partial(_feed, stage))
    for key in DEVICES:
        for name, command in COMMANDS.items():
            handler.post(f"/api/{key}/{name}", partial(_obey, stage, key, command))
    add_inspector(handler, stage.inspected, tuple(DEVICES), hub=stage.hub)
    return handler


async def _page(page: bytes, request: HttpRequest) -> HttpResponse:
    return HttpResponse(page, 200, "text/html; charset=utf-8")


async def _feed(stage: Stage, request: HttpRequest, send: EventSender) -> None:
    """Both boards now and after every change, and the hub's head, until the browser leaves."""
    boards = await stage.boards()
    heads: dict[str, int] = {}
    told: list[HubState] = []
    lock = trio.Lock()

    async def feed_board(board: Board) -> None:
        state = None
        while True:
            state = await board.next_state(state)
            heads[board.key] = state.head
            hub = HubState(max(heads.values()), str(stage.directory))
            async with lock:
                await send(msgspec.json.encode(state).decode(), event="device")
                if told != [hub]:
                    told[:] = [hub]
                    await send(msgspec.json.encode(hub).decode(), event="hub")

    async with open_tasks() as nursery:
        for board in boards.values():
            nursery.start_soon(feed_board, board)


async def _obey(stage: Stage, key: str, command: Command, request: HttpRequest) -> HttpResponse:
    """Carry a command out; what the runtime refuses comes back as its code and message."""
    try:
        body = msgspec.convert(request.json(), dict[str, object])
    except msgspec.ValidationError:
        raise HttpError(400, "send a JSON object") from None
    try:
        await command((await stage.boards())[key], body)
    except AtomaError as error:
        return json_response({"error": {"code": error.code, "message": str(error)}}, status=409)
    return json_response({})


def _text(body: dict[str, object], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise HttpError(400, f"{name} has to be text")
    return value


async def _plug(board: Board, body: dict[str, object]) -> None:
    plugged = body.get("plugged")
    if not isinstance(plugged, bool):
        raise HttpError(400, "plugged has to be true or false")
    board.plug(plugged)


COMMANDS: dict[str, Command] = {
    "add": lambda board, body: board.add(body.get("title"), body.get("lane")),
    "edit": lambda board, body: board.edit(_text(body, "id"), body.get("title")),
    "move": lambda board, body: board.move(_text(body, "id"), body.get("lane"), body.get("before")),
    "delete": lambda board, body: board.delete(_text(body, "id")),
    "plug": _plug,
    "inbox": lambda board, body: board.resolve(
        body.get("mid"), _text(body, "id"), body.get("action"), body.get("fields")
    ),
}
