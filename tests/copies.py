"""Copies of parts of the tree, in which something is left out or planted."""

from __future__ import annotations

import shutil
from importlib.util import cache_from_source
from pathlib import Path


def copy_part(source: Path, target: Path) -> None:
    """Copy a module or a package, with what Python has compiled of it.

    A program that imports hundreds of modules takes a second longer where each is compiled first. What is changed in the
    copy is compiled anew, as anywhere.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)
    for module in source.rglob("*.py") if source.is_dir() else [source]:
        compiled = Path(cache_from_source(str(module)))
        if compiled.is_file():
            own = Path(cache_from_source(str(target / module.relative_to(source))))
            own.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(compiled, own)
