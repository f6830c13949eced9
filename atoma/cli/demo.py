"""``atoma demo``: two devices, one hub, and a cable to pull."""

from __future__ import annotations

import argparse
import signal
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from atoma.cli.numbers import whole_number
from atoma.cli.reports import Exit
from atoma.contracts.extras import install_line
from atoma.errors import ConfigurationError
from atoma.ports.tasks import open_tasks

FEWEST_ROWS = 60  # the story has both devices edit this many of the same airports


def add_command(demo: argparse.ArgumentParser) -> None:
    """Add the description and the arguments of the command."""
    demo.description = "Two devices, one hub, and a cable to pull."
    demo.add_argument("--once", action="store_true", help="tell the story in the terminal, check the result and exit")
    demo.add_argument("--port", type=int, default=8765, help="port of the page (default 8765; 0 takes any free port)")
    demo.add_argument(
        "--dir", type=Path, default=None, help="keep the database files in this folder (default: a temporary folder)"
    )
    demo.add_argument(
        "--transport",
        choices=("websocket", "grpc", "http", "memory"),
        default="websocket",
        help="how the devices connect to the hub (default websocket)",
    )
    demo.add_argument(
        "--rows",
        type=partial(whole_number, least=FEWEST_ROWS),
        default=None,
        help=f"with --once: at most this many airports, at least {FEWEST_ROWS}",
    )
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> Exit:
    if options.dir is not None:
        try:
            options.dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{options.dir} cannot be used as a folder: {error.strerror}; name another folder"
            ) from error
        return _run_demo(options, options.dir)
    with tempfile.TemporaryDirectory(prefix="atoma-demo-") as folder:
        return _run_demo(options, Path(folder))


def _run_demo(options: argparse.Namespace, folder: Path) -> Exit:
    try:
        if options.once:
            from atoma.demo.story import tell

            return trio.run(_until_told, partial(tell, folder, options.rows, options.transport))
        from atoma.demo.page import run_page
    except ModuleNotFoundError as missing:
        raise ConfigurationError(f"the demo needs {missing.name}: {install_line('demo')}") from None

    async def serve() -> int:
        await run_page(host="127.0.0.1", port=options.port, directory=folder, transport=options.transport)
        return Exit.DONE

    return trio.run(_until_told, serve, restrict_keyboard_interrupt_to_checkpoints=True)


async def _until_told(work: Callable[[], Awaitable[int]]) -> Exit:
    """What ``work`` comes to; SIGTERM and Ctrl-C end it before, so that no folder of its own is left.

    Ctrl-C is a signal here, too: raised as an exception wherever the program is just then, Python would pass over it in a
    finaliser, and the program would go on.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed, and everything is closed.
    """
    code, interrupted = Exit.DONE, False
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_tasks() as nursery:

            async def stop() -> None:
                nonlocal interrupted
                interrupted = await anext(signals) == signal.SIGINT
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            code = Exit(await work())
            nursery.cancel_scope.cancel()
    if interrupted:
        raise KeyboardInterrupt
    return code
