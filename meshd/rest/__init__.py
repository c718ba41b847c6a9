"""The HTTP API, on Kuma's paths, from the registry.

``errors``    every error as Kuma's JSON
``authn``     who is calling: an administrator on loopback, a user token, or nobody
``access``    who may write what, as one pure table
``query``     paging and filters
``body``      a request body as data, bounded
``view``      resources and overviews as JSON
``own_zone``  what a federated zone says of itself
``kubernetes``, ``kri``  the same as objects of Kubernetes, by identifier
``index``     what is not a resource: ``/``, ``/policies``, ``/_resources``, ``/global-insight``
``inspect``   what the Envoy of a proxy says
``matched``   which policies are about a proxy and what they say, and the other way round
``writes``    what a write must hold to beyond its own shape: the mesh exists, nobody else owns it
``api``       what all handlers share
``handlers``  one request in, one answer out: resources
``proxies``   the same: what is asked about a proxy
``others``    the same: all else
``routes``    the Starlette applications (API, diagnostics)
``server``    serves an application over sockets it binds itself

A request: server (limits) -> routes -> authn -> access -> writes -> store -> view.
"""
