"""Packages of npm that tests drive real programs with: installed once per machine, in exactly these versions."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

NODE_OLDEST = 20
INSTALL_S = 90
_failed: dict[str, str] = {}
"""Why packages could not be installed, so that one test waits for that and not each."""
FOLDER = Path(tempfile.gettempdir()) / f"atoma-npm-{os.getuid()}"


@functools.cache
def _node() -> str:
    """The node that is there; skips the test where it is too old or not there."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm: apt install nodejs npm")
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(told.lstrip("v").partition(".")[0]) < NODE_OLDEST:
        pytest.skip(f"needs node {NODE_OLDEST} or later, this is {told.strip()}")
    return node


def installed(packages: Mapping[str, str]) -> Path:
    """A folder whose ``node_modules`` has ``packages``, name → version; skips the test where they cannot be had."""
    _node()
    name = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()[:16]
    folder = FOLDER / name
    if name in _failed:
        pytest.skip(_failed[name])
    if not (folder / "installed").exists():
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=FOLDER))
        (made / "package.json").write_text(json.dumps({"private": True, "type": "module", "dependencies": packages}))
        command = [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel=error",
            "--fetch-retries=1",
        ]
        try:
            subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=INSTALL_S, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            shutil.rmtree(made, ignore_errors=True)
            _failed[name] = f"npm could not install {', '.join(packages)}: {error}"
            pytest.skip(_failed[name])
        (made / "installed").touch()
        try:
            made.rename(folder)
        except OSError:  # another worker was faster
            shutil.rmtree(made, ignore_errors=True)
    return folder


def beside(packages: Mapping[str, str], program: Path, folder: Path) -> Path:
    """A copy of ``program`` in ``folder``, where it finds ``packages``; skips the test where they cannot be had."""
    (folder / "node_modules").symlink_to(installed(packages) / "node_modules")
    return Path(shutil.copy(program, folder))


def node_command(program: Path) -> list[str]:
    """What runs ``program``."""
    return [_node(), str(program)]
