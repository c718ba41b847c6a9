"""How services live.

``supervisor``  tiers of services, started in order and stopped in reverse; weather is retried, a bug ends the process
``latest``      a cell of the newest value
``listen``      TCP listening with per-connection isolation
``thread``      a Trio loop in a thread of its own
``datagrams``   many datagrams in one system call
``lines``       lines for a file, written by a thread that holds up nobody
``log``, ``notify``  what operators and systemd are told
"""
