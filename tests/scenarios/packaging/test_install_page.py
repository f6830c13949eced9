"""The page about installing, followed to the letter from an empty home, with each interpreter of this machine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.scenarios.packaging.kit import ROOT, checkout, output, ran

PAGE = (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(<!-- not run: .+ -->\n)?^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INTERPRETERS = ["/usr/bin/python3", *(f"python3.{minor}" for minor in (11, 12, 13, 14))]
INSTALLED_MAX = {"trio", "apsw", "reactivex", "msgspec", "atoma-runtime", "pip", "setuptools"} | {
    "attrs", "idna", "outcome", "sniffio", "sortedcontainers", "typing-extensions",
}  # fmt: skip
"""What an environment holds after the first block: the four libraries and what Trio and reactivex need."""

pytestmark = pytest.mark.soak


def usable(interpreter: str) -> str:
    """The interpreter's path; skips where there is none, or one that cannot make environments."""
    path = shutil.which(interpreter)
    if path is None or ran([path, "-c", "import ensurepip, sys; assert sys.version_info >= (3, 11)"], ROOT).returncode:
        pytest.skip(f"no {interpreter} here that makes environments")
    return path


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_the_page_can_be_followed_to_the_letter(interpreter: str, tmp_path: Path) -> None:
    python, here = usable(interpreter), checkout(tmp_path / "checkout")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(python)
    blocks = [found for found in BLOCK.finditer(PAGE) if not found[1]]
    commands = [found[3] for found in blocks if found[2] == "sh"]
    (promised,) = [found[3] for found in blocks if found[2] == "text"]
    listing = "echo ---; .atoma/bin/pip list --format=freeze; echo ---\n"
    script = "set -eu\n" + commands[0] + listing + "".join(commands[1:])
    told = output(["bash", "-c", script], here, PATH=f"{programs}:/usr/bin:/bin")
    version, installed, rest = told.split("---\n")
    assert version.startswith("atoma ")
    assert {line.partition("==")[0].lower().replace("_", "-") for line in installed.split()} <= INSTALLED_MAX
    assert promised in rest
    assert "--listen" in rest
