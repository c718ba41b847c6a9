"""The resolver of ``.mesh`` names: every query is answered from an immutable table, or forwarded, or refused.

::

    MeshView --render.py--> NameTable (table.py) --swapped whole--> server.py (UDP, TCP)
                                                                      |  answer.fast: ready-made bytes
                                                                      |  answer.respond: wire.py parses, dnslib builds
                                                                      `-> client.py: upstreams (forward.py judges)

- *domain*: the zone that is ours (``mesh``). A name under it is never forwarded, known or not.
- *host*: a name outside the domain that the mesh has taken over (an external service's). Its addresses are ours, its
  other records are still its owner's.
- *ready*: the finished answer section of a question, keyed by the question's bytes in lower case.

Everything but server.py, client.py and service.py is a pure function of its arguments. How fast it is and why it is
built so: ``docs/adr/004-one-loop.md``.
"""
