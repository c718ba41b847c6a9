"""The built-in engine: carries mesh connections at L4 inside this process, no Envoy needed.

    MeshViews + proxy resource + permits --render--> RouteTable --service--> listeners (server)
                                                                               | accept
    client_hello  SNI and ALPN of a ClientHello, however it is split           v
    choose        which endpoint next; ejection and recovery      dial (client) -> relay both ways
    tls           TLS over memory buffers, with half-close

``table`` is the vocabulary. ``server``, ``client`` and ``service`` do I/O; the rest are functions of their arguments.
"""
