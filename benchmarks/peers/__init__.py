"""TanStack DB and RxDB as programs of node that are told what to measure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {"@tanstack/db": "0.15.2", "rxdb": "17.6.0"}
PROGRAM = Path(__file__).with_name("live.mjs")
INSTALL_S = 180
Ask = Callable[[object], dict[str, float]]


def installed() -> Path | None:
    """A folder with the peers' packages, made once for this machine; None where node or npm is not there."""
    if shutil.which("node") is None or (npm := shutil.which("npm")) is None:
        return None
    folder = Path(tempfile.gettempdir()) / f"atoma-peers-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    wanted = json.dumps({"private": True, "type": "module", "dependencies": PACKAGES})
    package, modules = folder / "package.json", folder / "node_modules"
    if not modules.exists() or package.read_text(encoding="utf-8") != wanted:
        package.write_text(wanted, encoding="utf-8")
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_S)
    return folder


@contextmanager
def running(folder: Path, peer: str) -> Iterator[Ask]:
    """The program for ``peer``, ``tanstack`` or ``rxdb``, with the packages in ``folder``: what asks it to measure."""
    program = folder / PROGRAM.name
    program.write_text(PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")  # beside its packages, where node looks
    command = ["node", "--max-old-space-size=4096", "--stack-size=3900", str(program), peer]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    told, answers = process.stdin, process.stdout

    def ask(order: object) -> dict[str, float]:
        told.write(json.dumps(order) + "\n")
        told.flush()
        line = answers.readline()
        if not line:
            raise RuntimeError(f"{peer} ended with {process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer

    try:
        yield ask
    finally:
        process.kill()
        process.wait()
