"""Values that cross layers: requests, results, events, overlay and protocol messages. No behaviour, no I/O.

Import the submodule you need: ``values``, ``query``, ``execution``, ``events``, ``overlay``, ``sync``, ``codec``.
"""
