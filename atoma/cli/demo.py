"""``atoma demo``: two devices, one hub, and a cable to pull."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import trio

from atoma.errors import ConfigurationError

FEWEST_ROWS = 60  # the story has both devices edit this many of the same airports


def add_command(demo: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    demo.description = "Two devices, one hub, and a cable to pull."
    demo.add_argument("--once", action="store_true", help="tell the story in the terminal, check it and exit")
    demo.add_argument("--port", type=int, default=8765, help="port of the page (default 8765, 0 for any)")
    demo.add_argument(
        "--dir", type=Path, default=None, help="keep the database files here (default: a temporary folder)"
    )
    demo.add_argument(
        "--transport",
        choices=("websocket", "grpc", "http", "memory"),
        default="websocket",
        help="what the devices speak with the hub (default websocket)",
    )
    demo.add_argument(
        "--rows", type=_rows, default=None, help=f"with --once: at most this many airports, {FEWEST_ROWS} or more"
    )
    demo.set_defaults(run=_demo)


def _rows(text: str) -> int:
    if not text.isdecimal() or int(text) < FEWEST_ROWS:
        raise argparse.ArgumentTypeError(f"a whole number from {FEWEST_ROWS} on is needed, not {text!r}")
    return int(text)


def _demo(options: argparse.Namespace) -> int:
    if options.dir is not None:
        try:
            options.dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{options.dir} cannot be used as a folder: {error.strerror}; name another"
            ) from error
        return _run_demo(options, options.dir)
    with tempfile.TemporaryDirectory(prefix="atoma-demo-") as folder:
        return _run_demo(options, Path(folder))


def _run_demo(options: argparse.Namespace, folder: Path) -> int:
    try:
        if options.once:
            from atoma.demo.story import tell

            return trio.run(tell, folder, options.rows, options.transport)
        from atoma.demo.page import run_page
    except ModuleNotFoundError as missing:
        print(f"atoma: the demo needs {missing.name}: pip install 'atoma-runtime[demo]'", file=sys.stderr)
        return 1

    async def serve() -> None:
        await run_page(host="127.0.0.1", port=options.port, directory=folder, transport=options.transport)

    trio.run(serve, restrict_keyboard_interrupt_to_checkpoints=True)
    return 0
