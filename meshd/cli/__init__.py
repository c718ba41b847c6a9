"""The ``meshd`` command: arguments in, exit code out. Nothing here decides anything that a control plane should.

``command``  the command tree
``run``      ``meshd --config`` (hands over to ``meshd.app``)
``check``    ``meshd check``: configuration and resource files, every error at once, nothing started
``remote``   a control plane's REST API as the commands need it
``resources`` ``meshd apply|get|delete``
``dns``      ``meshd dns``: this host's resolver (``host_dns`` says how, ``changes`` undoes), and why a name is answered
``sync``     ``meshd sync``: whether global and zones have the same
``token``    ``meshd token zone|dataplane|user``
``output``   tables for people, JSON and YAML for programs

Exit codes: 0 done, 1 it failed (a control plane said no or is away), 2 the input is wrong and nothing was tried.
"""

from meshd.cli.command import main

__all__ = ["main"]
