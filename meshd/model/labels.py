"""Label and tag names with a meaning, as Kuma spells them.

Source: Kuma ``api/mesh/v1alpha1/dataplane_helpers.go``, ``pkg/core/resources/labels``.
"""

SERVICE = "kuma.io/service"
ZONE = "kuma.io/zone"
PROTOCOL = "kuma.io/protocol"
MESH = "kuma.io/mesh"
ORIGIN = "kuma.io/origin"
ORIGIN_GLOBAL = "global"
ORIGIN_ZONE = "zone"
DISPLAY_NAME = "kuma.io/display-name"
ENV = "kuma.io/env"
NAMESPACE = "k8s.kuma.io/namespace"
POLICY_ROLE = "kuma.io/policy-role"
PROXY_TYPE = "kuma.io/proxy-type"
KDS_SYNC = "kuma.io/kds-sync"
EFFECT = "kuma.io/effect"
WORKLOAD = "kuma.io/workload"
DELETION_GRACE = "kuma.io/deletion-grace-period-started-at"
LISTENER_INGRESS = "kuma.io/listener-zoneingress"
LISTENER_EGRESS = "kuma.io/listener-zoneegress"

MANAGED_BY_FILE = "meshd.io/config-file"
"""Set to "true" on a proxy that the configuration file owns: REST may read but not change it."""
REGISTERED = "meshd.io/registered-by-proxy"
"""Set to "true" on a proxy's resource that was stored because it connected, and goes when it is gone."""
OURS = "meshd.io/"
"""What our own labels begin with: nobody else may set them."""
ZONE_TOKEN_SHOWN = "meshd.io/zone-token-shown"  # noqa: S105 - a label's name
"""Set to "true" on a ZoneInsight whose zone has ever shown a token."""
OFFLINE_REASON = "meshd.io/offline-reason"
"""On a ZoneInsight: why its zone is offline."""

ZONE_EGRESS_SERVICE = "zone-egress"
"""The service in the identity of every zone egress (Kuma ``ZoneEgressServiceName``)."""
