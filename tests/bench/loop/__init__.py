"""Is one loop enough? DNS and engine latency in one process, with the control plane idle and busy.

``python -m tests.bench.loop`` runs it and prints a table; docs/adr/004-one-loop.md has the figures and the decision.
``subject.py`` is the process under test, ``dns_load.py`` and ``tcp_load.py`` are the clients, each in its own process.
"""
