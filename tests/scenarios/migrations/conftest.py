"""Hubs that are migrated live where the tests of the hub have theirs."""

from __future__ import annotations

from tests.unit.hub.conftest import pg

__all__ = ["pg"]
