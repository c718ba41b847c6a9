"""Zone <-> global synchronisation: Kuma 2.14's KDS, both roles.

A resource travels ``store -> crossing -> envelope -> discovery.Sender``, over the wire, and then
``discovery.Receiver -> envelope -> merge -> store``. In both directions the zone is the client of the connection.

- ``names``: the hash suffix that keeps names of different zones apart.
- ``crossing``: what a resource becomes at the border, and who may see it; ``surgery`` rewrites its encoded spec.
- ``envelope``: the ``KumaResource`` message.
- ``outbox``: every resource that one role sends, encoded once; ``merge``: a received batch against what is stored.
- ``quarantine``: what was refused, by whom and why. ``admission``: who may connect. ``health``: who is online.
- ``address``: where the global is, and whether it may be shown a token. ``metrics``: what is counted.
- ``ledger``: what both ends of a stream count, so that each can say whether they have the same.
- ``keeper``: writing what came and following what changes; ``session``: one sending and one receiving stream;
  ``service``: a zone's link and the book of zones on the global; ``server`` (``GlobalKds``) and ``client``
  (``ZoneKds``) run them.

Facts about the protocol: reference/kds.md.
"""
