"""``atoma --version`` names what is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version


def test_the_program_names_its_version() -> None:
    command = [sys.executable, "-m", "atoma", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.stdout, ended.stderr, ended.returncode) == (f"atoma {version('atoma-runtime')}\n", "", 0)
