"""What a call is, whatever language it is made in: its method, its bounds, its deadline, its errors, its caller's share."""

from __future__ import annotations

from atoma_transports.calls.limits import ChannelLimits

__all__ = ["ChannelLimits"]
