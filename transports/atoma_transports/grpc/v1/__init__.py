"""Generated from ``sync.proto``: messages, their types, and the service for grpclib."""

from __future__ import annotations
