"""Repair: a file that no longer continues the hub's history is brought back to a point from where it does.

=================  ==========================================================================================
``diagnosis``      what is wrong, from the reply to ``open`` and the file
``sorting``        what becomes of each pending mutation, from the verdicts that the hub keeps
``rebirth``        the one local transaction: settle, take a new client id, number the outbox anew
``procedure``      the steps over the connection, and the report
=================  ==========================================================================================
"""

from __future__ import annotations
