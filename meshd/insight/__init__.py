"""What streams and proxies are doing, as *Insight resources.

``proxies``   pure: the subscriptions and certificate of a proxy that this process runs itself
``streams``   pure: the same of a proxy that is connected
``service``   ``ProxyInsights``: writes them, closes what a crash left open
``computed``  pure: MeshInsight and ServiceInsight from the resources of a mesh
``keeper``    ``InsightKeeper``: recomputes them when something changed (global and standalone)
"""
