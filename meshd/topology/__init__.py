"""One mesh as seen from one zone: which services there are, where a connection to each may go, which VIP each has.

``view.py`` says what a ``MeshView`` is. ``services.py`` knows what each service is made of, ``endpoints.py`` turns that
into weighted endpoints, of which ``subsets.py`` gives those for some of the instances, ``vips.py`` allocates and names
virtual IPs, ``build.py`` puts views together and rebuilds only what a change touched; all of these are pure.
``keeper.py`` follows the store with them; it is the only writer of the VIP Configs and of ``availableServices``.

::

    store --dirty keys--> keeper --apply--> build.Topology --entries--> vips.allocate --commit--> store
                            |                     '--rebuild(addresses)--> views --> Latest
                            '--offer--> availableServices of the local ZoneIngresses --> store
"""
