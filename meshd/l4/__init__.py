"""The built-in engine: carries mesh connections at L4 inside this process, no Envoy needed.

    MeshViews + proxy resource + permits --render--> RouteTable --service--> listeners (server)
                                                                               | accept
    client_hello  SNI and ALPN of a ClientHello, however it is split           v
    choose        which endpoint next; ejection and recovery               session: may it come in, and where to
    tls           TLS over memory buffers, with half-close                     |
                                                  upstream, client: dial --> relay both ways

``table`` is the vocabulary. ``server``, ``session``, ``upstream``, ``client``, ``relay``, ``service`` and ``keeper``
(what names stood for, over a restart) do I/O; the rest are functions of their arguments.
"""
