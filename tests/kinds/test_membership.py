"""Which Dataplanes a Mesh lets in."""

import pytest

from meshd.kinds.dataplane import Dataplane
from meshd.kinds.membership import membership_violations
from meshd.kinds.mesh import Mesh
from meshd.model.shape import read_strict


def said(requirements=(), restrictions=(), **networking):
    rules = {
        "requirements": [{"tags": tags} for tags in requirements],
        "restrictions": [{"tags": tags} for tags in restrictions],
    }
    mesh = read_strict(Mesh, {"constraints": {"dataplaneProxy": rules}})
    dataplane = read_strict(Dataplane, {"networking": {"address": "10.0.0.1", **networking}})
    return [str(v) for v in membership_violations(dataplane, "m", mesh)]


def inbounds(*tags):
    return [{"port": at, "tags": t} for at, t in enumerate(tags, 80)]


WEB, DB = {"kuma.io/service": "web", "team": "a"}, {"kuma.io/service": "db"}


@pytest.mark.parametrize(
    ("requirements", "restrictions", "networking", "fields"),
    [
        ([], [], {"inbound": inbounds(WEB, DB)}, []),
        ([{"team": "a"}], [], {"inbound": inbounds(WEB)}, []),
        ([{"team": "*"}], [], {"inbound": inbounds(WEB, DB)}, ["networking.inbound[1]"]),
        ([{"team": "b"}, {"kuma.io/service": "db"}], [], {"inbound": inbounds(WEB, DB)}, ["networking.inbound[0]"]),
        ([], [{"kuma.io/service": "db"}], {"inbound": inbounds(WEB, DB)}, ["networking.inbound[1]"]),
        ([], [{"kuma.io/service": "web", "team": "b"}], {"inbound": inbounds(WEB)}, []),
        ([], [{"team": "*"}], {"gateway": {"tags": WEB}}, ["networking.gateway"]),
        ([{"team": "*"}], [], {"gateway": {"tags": DB}}, ["networking.gateway"]),
        ([{}], [], {"inbound": inbounds({})}, []),
    ],
)
def test_every_set_of_tags_must_be_allowed(requirements, restrictions, networking, fields):
    assert [v.partition(":")[0] for v in said(requirements, restrictions, **networking)] == fields


def test_the_reason_names_tags_and_mesh():
    [required] = said([{"team": "b"}], inbound=inbounds(WEB))
    assert required == (
        "networking.inbound[0]: cannot be a member of mesh 'm' with tags kuma.io/service=web team=a:"
        " none of the mesh's requirements has them"
    )
    [restricted] = said([], [{"team": "*"}], inbound=inbounds(WEB))
    assert restricted.endswith("the mesh restricts team=*")
