"""Frames over message pipes: what is the same on every transport that moves whole messages."""

from __future__ import annotations

from atoma_transports.frames.handshake import open_channel
from atoma_transports.frames.pipe import MessagePipe
from atoma_transports.frames.server import serve_pipe

__all__ = ["MessagePipe", "open_channel", "serve_pipe"]
