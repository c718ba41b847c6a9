"""Envoy as the data plane: what each proxy is to have, and the streams that bring it there.

- ``encode``: proto-JSON documents -> protobuf bytes; ``resources``: encoded resources, and what one proxy is to have.
- ``names``, ``tls``, ``clusters``, ``listeners``: Kuma's names, and the pieces of documents.
- ``inbound``, ``outbound``, ``transparent``, ``zone_ingress``, ``zone_egress``, ``secrets``, ``admin``, ``dns``,
  ``prometheus``, ``probes``: the resources of a proxy, each a pure function of a view. ``dynconf`` is what kuma-dp
  fetches through its Envoy; ``static_http`` what the HTTP listeners of a proxy's own share.
- ``shaping``: the drafts that policies change, and their hooks.
- ``keeper``: renders connected proxies again as far as a change reaches.
"""
