"""From neutral requests to the protocol and back; and the table of methods, from which services are made."""

from __future__ import annotations

from atoma_transports.adapters.methods import METHODS
from atoma_transports.adapters.operations import OperationAdapter
from atoma_transports.adapters.services import PassingService, ServiceProxy

__all__ = ["METHODS", "OperationAdapter", "PassingService", "ServiceProxy"]
