"""The composition root: configurations -> services in tiers, the one place that knows everybody.

``bootstrap``  what a role writes into its store before anything runs (its own proxies, the default mesh, itself)
``service``    services that exist only to join others: the proxies of this process, KDS over its sockets
``process``    what the process as a whole needs: directories, descriptors, a settled heap
``app``        one role as tiers of services; several roles side by side; signals
"""

from meshd.app.app import run, run_roles

__all__ = ["run", "run_roles"]
