"""Calls, independent of the protocol that carries them: method, limits, deadline, errors, and the caller's share."""

from __future__ import annotations

from atoma_transports.calls.limits import ChannelLimits

__all__ = ["ChannelLimits"]
