"""What is done to the pages as they are built: marks of docstrings are dropped, and a list for coding assistants is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")


def on_page_content(html: str, **_: object) -> str:
    """Drop the marks from a rendered page."""
    return ROLE.sub("", html)


SECTIONS = {"tutorial": "Tutorial", "how-to": "How-to", "reference": "Reference", "explanation": "Explanation"}
LINKED = re.compile(r"\[([^\]]+)\]\(([\w-]+)\.md\)")


def on_post_build(config: Mapping[str, object], **_: object) -> None:
    """Write ``llms.txt``, where coding assistants look for what there is to read."""
    docs, site = Path(str(config["docs_dir"])), Path(str(config["site_dir"]))
    (site / "llms.txt").write_text(pages_for_assistants(docs, str(config["site_description"])), encoding="utf-8")


def pages_for_assistants(docs: Path, description: str) -> str:
    """Every page with what its section's index says of it: that list is kept there, and nowhere else."""
    lines = ["# Atoma", "", f"> {description}", "", "Read first: [conventions](how-to/assistants.html)."]
    for section, title in SECTIONS.items():
        lines += ["", f"## {title}", ""]
        index = (docs / section / "index.md").read_text(encoding="utf-8")
        entries = [line for line in index.splitlines() if line.startswith("- ")]
        lines += [LINKED.sub(rf"[\1]({section}/\2.html)", line) for line in entries]
    return "\n".join(lines) + "\n"
