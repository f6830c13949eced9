"""Distributions built from the checkout, and environments of their own to install them into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SECONDS_MAX = 240


def ran(command: list[str | Path], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command that ended, in an environment that knows nothing of this one."""
    environment = {"PATH": os.defpath, "HOME": str(folder), "LANG": "C.UTF-8", **variables}
    if "PIP_CACHE_DIR" in os.environ or (Path.home() / ".cache" / "pip").is_dir():
        environment["PIP_CACHE_DIR"] = os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache" / "pip"))
    for name in ("PIP_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "NO_PROXY"):
        if name in os.environ:
            environment[name] = os.environ[name]
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS_MAX,
    )  # fmt: skip


def output(command: list[str | Path], folder: Path, **variables: str) -> str:
    done = ran(command, folder, **variables)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def checkout(folder: Path) -> Path:
    """The checkout's files, without what is made in it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=SECONDS_MAX,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


def build(source: Path, target: str, folder: Path) -> Path:
    """The one distribution of a kind, ``wheel`` or ``sdist``."""
    folder.mkdir(parents=True, exist_ok=True)
    output([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder], source)
    (made,) = folder.iterdir()
    return made
