"""Where gRPC is not installed there is nothing to test."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("grpclib") is not None else ["test_*.py"]
