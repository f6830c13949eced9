"""From neutral requests to the protocol and back: what transports and ``Remote`` are built from."""

from __future__ import annotations

from atoma_transports._channel.limits import ChannelLimits
from atoma_transports._channel.pipe import MessagePipe
from atoma_transports.adapters.channel import Token, open_channel
from atoma_transports.adapters.operations import OperationAdapter
from atoma_transports.adapters.proxy import ServiceProxy

__all__ = ["ChannelLimits", "MessagePipe", "OperationAdapter", "ServiceProxy", "Token", "open_channel"]
