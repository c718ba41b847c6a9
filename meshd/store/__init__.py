"""Where resources live: one protocol (``store.py``), an in-memory and a SQLite implementation, one contract suite.

Reads are synchronous and come from the committed image in memory; writes are transactions. Who wants to know what
changed holds a ``ChangeFeed``: a set of dirty keys, so it is bounded by the number of resources and never overflows.
"""
