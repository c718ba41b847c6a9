"""The resolver of ``.mesh`` names: every query is answered from an immutable table, or forwarded, or refused.

::

    MeshView --render.py--> NameTable (table.py) <--read-- server.py (UDP, TCP; guard.py, cookies.py)
                  |         changed name by name             |  answer.fast: ready-made bytes
                  |                                          |  answer.respond: wire.py parses, dnslib builds
                  |                                          |-> client.py: upstreams (forward.py judges)
                  |                                          `-> watch.py, top.py: query log, names asked for most
                  `--keeper.py, pipe.py--> app.py: worker processes, each with a table and a server

- *domain*: the zone that is ours (``mesh``). A name under it is never forwarded, known or not.
- *host*: a name outside the domain that the mesh has taken over (an external service's). Its addresses are ours, its
  other records are still its owner's.
- *fast road*: plain questions, answered by joining ready pieces; *slow road*: all others. Both give the same bytes.

Everything but server.py, client.py, service.py, keeper.py and app.py is a pure function of its arguments. Why it is
built so: ``docs/adr/009-dns.md``, ``docs/adr/004-one-loop.md``.
"""
