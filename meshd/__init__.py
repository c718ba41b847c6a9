"""meshd: a multi-zone service mesh control plane in one process.

The words that the code uses, each one type:

- ``ResourceKey`` (kind, mesh, name) names a ``Resource``; its ``ResourceType`` in the ``Registry`` says everything
  that is particular to the kind.
- ``Store`` holds resources and tells a ``ChangeFeed`` which keys changed.
- ``Latest[T]`` is a cell with one writer and many readers: the newest value wins.
- ``MeshView`` is one mesh as seen from one zone: services, endpoints, virtual IPs; all else is rendered from it.
- ``NameTable`` (dns) and ``RouteTable`` (l4) are its renderings.
- ``Sender`` and ``Receiver`` are the two sides of the delta discovery protocol, without I/O.
- ``Identity`` and ``TrustBundle`` are what a proxy shows and what it believes.

docs/tour.md walks through three journeys.
"""

__version__ = "0.1.0"
