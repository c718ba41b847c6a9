"""Which policies match which proxy, and their merge. Generic over the policy: nothing here knows a kind.

``target_ref.py`` is Kuma's ``targetRef`` and its validation; ``client_match.py`` a condition on a client's identity;
``match.py`` selects the policies of one inbound or proxy and sorts them, least specific first; ``regions.py`` turns
the ``from`` (or ``to``) entries of the sorted policies into one conf per client, or into disjoint rules with
negations; ``merge.py`` merges confs.

::

    policies --match.of_inbound--> sorted policies --entries--> [(tags, conf, origin)] --regions--> conf of a client

Facts: reference/dataplane.md 8.1, 8.2; Kuma ``pkg/plugins/policies/core``.
"""
