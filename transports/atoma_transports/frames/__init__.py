"""Frames over message pipes: the part that all transports that move whole messages have in common."""

from __future__ import annotations

from atoma_transports.frames.handshake import open_channel
from atoma_transports.frames.pipe import MessagePipe
from atoma_transports.frames.server import serve_pipe

__all__ = ["MessagePipe", "open_channel", "serve_pipe"]
