"""The composition root: ``open_client`` and the client it opens."""

from __future__ import annotations

from atoma.client.client import Client, open_client

__all__ = ["Client", "open_client"]
