"""Connections to a hub over sockets: its address, the token, TLS, a proxy."""

from __future__ import annotations

from atoma_transports.dialing.credentials import Token

__all__ = ["Token"]
