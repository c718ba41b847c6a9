"""One mesh as seen from one zone: which services there are, where a connection to each may go, which VIP each has.

``view.py`` says what a ``MeshView`` is; ``endpoints.py``, ``services.py``, ``vips.py`` compute it from resources;
``keeper.py`` rebuilds what a change touched and is the only writer of VIPs and ``availableServices``.
"""
