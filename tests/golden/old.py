"""The golden commit itself, taken out of the repository's history: its code makes golden files and is an old peer.

``python -m tests.golden.old make`` writes the golden files; see README.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = "e434afd"
FOLDER = Path(__file__).parent / GOLDEN
OWN = ("kit.py", "make_files.py", "messages.py", "names.py", "peer.py")
"""Programs of this folder that the golden commit's code runs."""


class NoHistory(Exception):
    """The commit is not there: no git, no repository, or a shallow one."""


def check_out(folder: Path) -> Path:
    """The golden commit's tree below ``folder``, with this folder's programs beside its tests.

    Raises:
        NoHistory: Says why it cannot be had.
    """
    if shutil.which("git") is None:
        raise NoHistory("git is not installed")
    command = ["git", "archive", GOLDEN, "atoma", "stores", "transports"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if archive.returncode != 0:
        raise NoHistory(f"commit {GOLDEN} is not in this repository's history: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    programs = folder / "tests/golden"
    programs.mkdir(parents=True)
    for name in OWN:
        shutil.copy(Path(__file__).with_name(name), programs)
    return folder


def environment(tree: Path) -> dict[str, str]:
    """The environment of a program that imports the code of ``tree`` and none of this one."""
    places = os.pathsep.join(str(tree / place) for place in (".", "stores", "transports"))
    return {**os.environ, "PYTHONPATH": places, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}


def command_of(program: str, *arguments: str) -> list[str]:
    """The command that runs one of the programs; its folder has to be the tree."""
    check = "import atoma, os; assert atoma.__file__.startswith(os.getcwd() + os.sep), atoma.__file__"
    run = f"import runpy; runpy.run_module('tests.golden.{program}', run_name='__main__')"
    return [sys.executable, "-c", f"{check}; {run}", *arguments]


def make() -> None:
    """Write the golden files anew."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = check_out(Path(folder).resolve())
        for program, target in (("make_files", FOLDER), ("messages", FOLDER / "messages.json")):
            subprocess.run(command_of(program, str(target)), cwd=tree, env=environment(tree), check=True)


if __name__ == "__main__" and sys.argv[1:] == ["make"]:
    make()
