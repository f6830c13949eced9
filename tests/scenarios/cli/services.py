"""``services.py start|stop NAME…``: what stands for ``systemctl`` where the pages are followed.

``atoma-hub`` serves ``hub.db`` on the port that ``PORT`` names, ``litestream`` replicates it; each is a process of its own, and
``start`` returns once it works.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "atoma-hub": [sys.executable, str(Path(__file__).with_name("serving.py")), "hub.db", os.environ.get("PORT", "0")],
    "litestream": ["litestream", "replicate", "-config", "litestream.yml"],
}
PATIENCE_S = 30.0


def start(name: str) -> None:
    output = Path(f"{name}.log")
    with output.open("wb") as log:
        process = subprocess.Popen(COMMANDS[name], stdout=log, stderr=log, start_new_session=True)
    Path(f"{name}.pid").write_text(str(process.pid))
    until = time.monotonic() + PATIENCE_S
    while not output.stat().st_size:
        assert time.monotonic() < until and process.poll() is None, output.read_text()
        time.sleep(0.02)


def stop(name: str) -> None:
    file = Path(f"{name}.pid")
    if not file.exists():
        return
    number = int(file.read_text())
    file.unlink()
    os.kill(number, signal.SIGTERM)
    until = time.monotonic() + PATIENCE_S
    while is_running(number):
        assert time.monotonic() < until, f"{name} does not end"
        time.sleep(0.02)


def is_running(number: int) -> bool:
    """Not so of one that has ended and that nobody has waited for."""
    stat = Path(f"/proc/{number}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


if __name__ == "__main__":
    for service in sys.argv[2:]:
        {"start": start, "stop": stop}[sys.argv[1]](service)
