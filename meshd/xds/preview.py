"""What a Dataplane is to have, rendered once, for people who ask: as things are, or with the shadow policies as well.

By the same functions as the keeper's, with layers of its own that no proxy sees. Certificates are not among it.
"""

from collections.abc import Callable
from dataclasses import replace

from meshd.ca.x509 import KeyPair
from meshd.kinds.mesh import CertificateAuthorityBackend
from meshd.model import labels as label
from meshd.model.resource import Resource
from meshd.model.steps import Steps
from meshd.topology.view import MeshView
from meshd.xds.abilities import Abilities
from meshd.xds.dataplanes import Dataplanes
from meshd.xds.matched import Shapers
from meshd.xds.proxies import Proxy, has_outbounds, own_resources
from meshd.xds.resources import XdsResource


def with_shadows(view: MeshView) -> MeshView:
    """The view as it would be if the shadow policies were real."""
    return replace(view, policies={kind: tuple(map(_made_real, policies)) for kind, policies in view.policies.items()})


def _made_real(policy: Resource) -> Resource:
    return replace(policy, labels={key: value for key, value in policy.labels.items() if key != label.EFFECT})


def preview(
    view: MeshView,
    dataplane: Resource,
    located: Resource,
    abilities: Abilities,
    shapers: Shapers,
    dataplanes: Callable[[], Dataplanes],
    admin_ca: KeyPair | None,
    ending: CertificateAuthorityBackend | None,
) -> Steps[list[XdsResource]]:
    """All resources of a Dataplane but its secrets.

    ``located`` is the Dataplane with addresses for names, ``dataplanes`` makes an empty set of shared layers,
    ``admin_ca`` that of the way to its admin API, ``ending`` what its inbounds still take in a mesh without
    mTLS (``turning``).

    Raises:
        SchemaError: it cannot be rendered.
    """
    proxy = Proxy(dataplane.key, abilities)
    proxy.own.replace(own_resources(view, located, abilities, shapers, {}, admin_ca, ending))
    yield
    shared = dataplanes()
    if has_outbounds(view, dataplane):
        shared.choose(proxy, view, dataplane)
    yield from shared.update([proxy], {view.mesh_name: view}, {})
    layers = shared.layers(proxy)
    return [XdsResource(type_url, entry) for layer in layers for type_url, entry in layer.items()]
