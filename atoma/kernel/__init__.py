"""The execution kernel, the policies that it runs, and the combinators in which they are written."""

from __future__ import annotations

from atoma.concurrency.backoff import Backoff
from atoma.kernel.combinators import (
    atomic,
    breaker,
    bulkhead,
    cache,
    detach,
    fallback,
    hedge,
    merge,
    node,
    parallel,
    race,
    refuse,
    retry,
    sequence,
    timeout,
    verdict,
    when_synced,
)
from atoma.kernel.events import EventDispatch
from atoma.kernel.explain import FORMS, Form, explain
from atoma.kernel.kernel import ExecutionKernel
from atoma.kernel.merging import MergeNode
from atoma.kernel.policy import (
    PolicyRegistry,
    cache_and_network,
    cache_only,
    direct_local,
    direct_remote,
    hybrid,
    local_first,
    network_only,
    remote_first,
    sync_queue,
)
from atoma.kernel.types import DetachedResults, GuardInfo, KernelLimits, NodeInfo, PolicyInfo, Topology, describe_path

__all__ = [
    "FORMS",
    "Backoff",
    "DetachedResults",
    "EventDispatch",
    "ExecutionKernel",
    "Form",
    "GuardInfo",
    "KernelLimits",
    "MergeNode",
    "NodeInfo",
    "PolicyInfo",
    "PolicyRegistry",
    "Topology",
    "atomic",
    "breaker",
    "bulkhead",
    "cache",
    "cache_and_network",
    "cache_only",
    "describe_path",
    "detach",
    "direct_local",
    "direct_remote",
    "explain",
    "fallback",
    "hedge",
    "hybrid",
    "local_first",
    "merge",
    "network_only",
    "node",
    "parallel",
    "race",
    "refuse",
    "remote_first",
    "retry",
    "sequence",
    "sync_queue",
    "timeout",
    "verdict",
    "when_synced",
]
