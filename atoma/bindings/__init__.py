"""Bindings for programs that do not run on Trio: each opens the same client, with the same names, in its host's manner.

``atoma.bindings.aio`` is for asyncio, ``atoma.bindings.blocking`` for everything that has no loop at all. Nothing below a
binding knows it: it stands on the public interface of the client alone.
"""
