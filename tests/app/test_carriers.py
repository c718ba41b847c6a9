"""Which proxies run here, and the one face of both engines."""

import pytest

from meshd.app.carriers import Selection, Wanted, selections
from meshd.config.tree import Config, ProxyEntry
from meshd.model.resource import ResourceKey

WEB = ResourceKey("Dataplane", "default", "web-1")
VM = ResourceKey("Dataplane", "default", "vm")


@pytest.mark.parametrize(
    ("key", "is_one"),
    [
        (WEB, True),
        (ResourceKey("Dataplane", "default", "web-"), True),
        (ResourceKey("Dataplane", "default", "Web-1"), False),
        (ResourceKey("Dataplane", "other", "web-1"), False),
        (ResourceKey("ZoneIngress", "default", "web-1"), False),
    ],
)
def test_a_selection_is_a_mesh_and_a_pattern_of_names(key, is_one):
    assert Selection("default", "web-*").has(key) is is_one


def entry(**settings):
    return ProxyEntry.model_validate(settings)


def test_what_the_file_says_of_a_proxy_counts_before_a_selection_and_the_first_selection_before_others():
    own, first, second = entry(engine="envoy"), entry(), entry(engine="envoy", concurrency=2)
    wanted = Wanted({VM: own}, (Selection("default", "web-*", first), Selection("default", "*", second)))
    assert wanted.entry_of(VM) is own
    assert wanted.entry_of(WEB) is first
    assert wanted.entry_of(ResourceKey("Dataplane", "default", "db")) is second
    assert wanted.entry_of(ResourceKey("Dataplane", "other", "db")) is None
    assert wanted.entry_of(ResourceKey("ZoneIngress", "", "web-1")) is None


def test_one_proxy_of_the_file_owns_the_vips_or_none():
    assert Wanted({WEB: entry(), VM: entry(vips=True)}).vip_owner == VM
    assert Wanted({WEB: entry()}).vip_owner is None


def test_selections_are_the_entries_without_a_resource():
    config = Config.model_validate(
        {
            "proxies": [
                {"resource": {"type": "ZoneIngress", "name": "i"}},
                {"engine": "envoy", "dataplanes": {"mesh": "m", "names": "a*"}},
                {"dataplanes": {}},
            ]
        }
    )
    found = selections(config)
    assert [(s.mesh, s.names, s.entry.engine) for s in found] == [("m", "a*", "envoy"), ("default", "*", "builtin")]
