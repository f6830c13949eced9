"""Repair: a file that no longer continues the hub's history is brought back to a point from where it does.

=================  ==========================================================================================
``diagnosis``      what is wrong, from the reply to ``open`` and the file
``sorting``        what becomes of each pending mutation, from the verdicts that the hub keeps
``rebirth``        the one local transaction: settle, take a new client id, number the outbox anew
``ordering``       in which order rows are offered, so that a unique value is free when it is taken
``offers``         what the file has seen of a history that the hub has lost: offered again, or kept for somebody
``changes``        what repairs change in the local database, as values for the apply port
``procedure``      the steps over the connection, and the report
=================  ==========================================================================================
"""

from __future__ import annotations
