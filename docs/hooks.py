"""The hooks of the build: marks of docstrings are dropped, the search finds pages by other words, and assistants get a list."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Protocol

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")


def on_page_content(html: str, **_: object) -> str:
    """Drop the marks from a rendered page."""
    return ROLE.sub("", html)


UNSEARCHED = ("adr/", "internals/")
"""The folders whose pages are for people who work on Atoma: the search leaves them out."""

ALSO_CALLED = {
    "explanation/comparison.md": ["alternatives", "versus", "Ditto", "PowerSync", "RxDB", "SQLModel", "peewee"],
    "explanation/durability.md": ["fsync", "crash", "power loss", "synchronous"],
    "how-to/aggregate.md": ["sum", "average", "count", "group by", "totals"],
    "how-to/back-up.md": ["backup", "restore", "snapshot", "disaster recovery"],
    "how-to/declare-stores.md": ["model", "table", "column", "schema", "unique", "constraint", "money", "currency"],
    "how-to/deploy-hub.md": ["deployment", "Docker", "container", "systemd", "service", "production"],
    "how-to/encrypt.md": ["encryption", "SQLCipher", "password", "key rotation"],
    "how-to/follow.md": ["subscribe", "watch", "observe", "reactive", "changes", "signal"],
    "how-to/import-export.md": ["CSV", "JSON", "Parquet", "Arrow", "dump", "load"],
    "how-to/merge-text.md": ["CRDT", "collaboration", "Yjs"],
    "how-to/migrate.md": ["migration", "rename field", "add column", "change type", "alembic"],
    "how-to/partial-sync.md": ["partial replication", "shapes", "filter what is synced"],
    "how-to/query.md": ["select", "where", "filter", "full-text search", "pagination", "cursor"],
    "how-to/relate.md": ["foreign key", "join", "one to many", "many to many", "eager loading", "subquery"],
    "how-to/run-hub.md": ["server", "authentication", "token", "TLS", "permissions"],
    "how-to/share-a-file.md": ["multiple processes", "locked", "concurrent access"],
    "how-to/simulate.md": ["testing", "mock", "fault injection", "pytest"],
    "how-to/sync.md": ["conflict", "inbox", "outbox", "offline", "replication"],
    "how-to/undo.md": ["undo", "redo", "revert"],
    "how-to/use-asyncio.md": ["async", "await", "FastAPI", "Discord", "Jupyter", "notebook"],
    "how-to/use-blocking.md": ["threads", "synchronous", "Flask", "Django", "Jupyter", "notebook", "pandas"],
    "how-to/use-qt.md": ["PySide", "PyQt", "desktop", "GUI", "QML"],
    "how-to/use-tk.md": ["tkinter", "desktop", "GUI"],
    "how-to/use-textual.md": ["TUI", "terminal"],
    "how-to/use-web.md": ["ASGI", "Starlette", "FastAPI", "WebSocket", "SSE", "server-sent events"],
    "how-to/write.md": ["insert", "update", "delete", "upsert", "transaction", "bulk"],
    "reference/field-types.md": ["Decimal", "money", "datetime", "date", "UUID", "enum", "JSON"],
}
"""The words by which people look for a page that does not contain them, or has them in passing only."""


class Page(Protocol):
    """The part of a page that the hooks use."""

    file: File
    meta: MutableMapping[str, object]


class File(Protocol):
    """The part of a page's file that the hooks use."""

    src_uri: str


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Tell the search plugin which pages to leave out, and what others are also called."""
    if page.file.src_uri.startswith(UNSEARCHED):
        page.meta["search"] = {"exclude": True}
    elif words := ALSO_CALLED.get(page.file.src_uri):
        page.meta["tags"] = words
    return markdown


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
