"""Docstrings mark names as ``:class:`Name```; on the pages a name is just code."""

from __future__ import annotations

import re

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(?=<code>)")


def on_page_content(html: str, **_: object) -> str:
    """Drop the marks from a rendered page."""
    return ROLE.sub("", html)
