"""``atoma inspect``: the inspector's page for a device's file, whether or not its program is running."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

import trio

from atoma.cli.offline import add_device_file, open_offline
from atoma.cli.reports import Exit
from atoma.errors import AuthenticationError, ConfigurationError
from atoma.ports import Peer, Principal, SyncService


class _Nobody:
    """A host that serves only pages, without a hub."""

    async def authenticate(self, token: str, peer: Peer) -> Principal:
        raise AuthenticationError("there is no hub here, only the inspector")

    def service(self, principal: Principal) -> SyncService:
        raise AuthenticationError("there is no hub here, only the inspector")


def add_command(command: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    command.description = (
        "Serve the inspector for a device's file to browsers on this machine, until Ctrl-C. Writes of other programs appear as "
        "they happen. Nothing is sent to a hub from here."
    )
    add_device_file(command)
    command.add_argument("--port", type=int, default=0, help="port of the page (default: a free one)")
    command.add_argument("--open", action="store_true", help="open the page in your browser")
    command.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> Exit:
    trio.run(_serve, options, restrict_keyboard_interrupt_to_checkpoints=True)
    return Exit.DONE


async def _serve(options: argparse.Namespace) -> None:
    try:
        from atoma.inspector import Inspected, Inspection, add_inspector
        from atoma_transports.http import HttpHandler
        from atoma_transports.serving import open_server
    except ModuleNotFoundError as missing:
        raise ConfigurationError(f"the inspector cannot be served: {missing.msg}") from None
    path = Path(options.file)
    eye, handler = Inspection(), HttpHandler()
    async with open_offline(options, plugins=[eye]) as client:
        add_inspector(handler, [Inspected("file", path.name, client, eye, path)])
        async with open_server(_Nobody(), f"127.0.0.1:{options.port}", pages=handler) as address:
            page = f"http://{address}/inspector"
            print(f"{path}: {page}   Ctrl-C stops", flush=True)
            if options.open:
                await trio.to_thread.run_sync(webbrowser.open, page)
            await trio.sleep_forever()
