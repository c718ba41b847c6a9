"""Envoy processes that meshd starts itself: one a proxy, started, watched, drained, and kept over restarts of meshd.

    Fleet --process()--> EnvoyProcess --session--> a running Envoy (pidfd)
                             |  '------client----> its admin interface (a Unix socket, 0600)
                             '---------logs------> the log of this process, by the proxy's name

============= ==========================================================================================
``binary``    where the program is
``command``   its arguments and environment, its version, whether a running one is still what is wanted
``places``    the files and sockets of one proxy
``files``     makes and removes them
``processes`` the Envoys of a state directory that run now, from /proc
``exits``     how an end is judged
``logs``      Envoy's log lines, and how many of them are let through
``admin``     what its admin interface says
``metrics``   what is counted
``client``    asks the admin interface
``session``   one running Envoy: its start, end, signals and drain
``relay``     carries its log into ours
``service``   ``EnvoyProcess``: the Envoy of one proxy, whatever happens to it
``keeper``    ``Fleet``: all Envoys of a role, and what an earlier run left
============= ==========================================================================================

The process that an Envoy belongs to is found in its command line, which names its bootstrap file. There is no file with
process ids that could be stale (docs/adr/006-envoy-processes.md). What the bootstrap says is the caller's.
"""
