"""Documents of kinds with a spec and a status; those of the flat kinds are tested with them in tests/kinds."""

from datetime import UTC, datetime

import pytest

from meshd.kinds import KINDS
from meshd.model import labels as label
from meshd.model.codec import (
    decode_document,
    encode_document,
    kri,
    spec_from_wire,
    spec_to_wire,
    status_from_wire,
    status_to_wire,
)
from meshd.model.errors import InvalidError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.model.resource_type import Flow, ResourceType, Scope


class Inner(Spec):
    size: int | None = None
    names: tuple[str, ...] | None = None


class WidgetSpec(Spec):
    inner: Inner | None = None
    mode: str | None = None


class WidgetStatus(Spec):
    ready: bool | None = None


WIDGET = ResourceType(
    kind="Widget",
    path="widgets",
    short="wg",
    scope=Scope.MESH,
    flow=Flow.NONE,
    spec=WidgetSpec,
    status=WidgetStatus,
    flat=False,
    doc="",
)
REGISTRY = Registry([*KINDS, WIDGET])
HEAD = {"type": "Widget", "mesh": "default", "name": "w"}


def complaints(document):
    with pytest.raises(InvalidError) as caught:
        decode_document(document, REGISTRY)
    return [str(v) for v in caught.value.violations]


def test_document_as_kuma_prints_it():
    resource = Resource(
        ResourceKey("Widget", "default", "w-x7b9"),
        WidgetSpec(inner=Inner(size=0, names=())),
        labels={label.ZONE: "zone-a", label.DISPLAY_NAME: "w"},
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        modified=datetime(2026, 1, 2, 3, 4, 5, 120000, tzinfo=UTC),
    )
    document = encode_document(resource, REGISTRY)
    assert document == {
        "type": "Widget",
        "mesh": "default",
        "name": "w-x7b9",
        "creationTime": "2026-01-02T03:04:05Z",
        "modificationTime": "2026-01-02T03:04:05.12Z",
        "labels": {label.DISPLAY_NAME: "w", label.ZONE: "zone-a"},
        "kri": "kri_wg_default_zone-a__w_",
        "spec": {"inner": {"size": 0, "names": []}},
        "status": {},
    }
    assert list(document)[:3] == ["type", "mesh", "name"]
    read = decode_document(document, REGISTRY)
    assert (read.spec, read.labels, read.version, read.created) == (resource.spec, resource.labels, 0, None)


def test_section_of_a_kri():
    resource = Resource(ResourceKey("Widget", "m", "w"), WidgetSpec())
    assert kri(resource, WIDGET, "http") == "kri_wg_m___w_http"


def test_spec_may_be_left_out():
    assert decode_document(HEAD, REGISTRY).spec == WidgetSpec()
    assert decode_document({**HEAD, "spec": None, "status": None}, REGISTRY).spec == WidgetSpec()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"inner": {}}, ['inner: unknown field; it belongs under "spec" in a Widget']),
        ({"spce": {}}, ['spce: unknown field; did you mean "spec"?']),
        ({"spec": {"inner": {"sise": 1}}}, ['spec.inner.sise: unknown field; did you mean "size"?']),
        ({"spec": []}, ["spec: must be an object, not []"]),
        ({"spec": {"inner": {"names": [1, "a", None]}}}, 2),
        ({"status": {"ready": "yes"}}, ['status.ready: must be true or false, not "yes"']),
        ({"labels": []}, ["labels: must be an object, not []"]),
        ({"type": "Wdget"}, ['type: "Wdget" is no known kind; did you mean "Widget"?']),
        ({"type": None}, ["type: is required: the kind of the resource"]),
        ({"type": 5}, ["type: must be text, not 5"]),
        ({5: 5}, ['["5"]: field names must be text']),
        ({"spec": {"mode": float("nan")}}, 1),
    ],
)
def test_complaints_about_documents(change, expected):
    found = complaints({**HEAD, **change})
    assert found == expected if isinstance(expected, list) else len(found) == expected


@pytest.mark.parametrize("data", [None, [], "x", 5])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(InvalidError, match="must be an object with type and name"):
        decode_document(data, REGISTRY)


def test_peers_may_know_more_fields_and_send_nulls():
    data = b'{"inner": {"size": 1, "later": {"x": []}, "names": null}, "new": true}'
    assert spec_from_wire(WIDGET, data) == WidgetSpec(inner=Inner(size=1))
    assert status_from_wire(WIDGET, b'{"ready": true, "x": 1}') == WidgetStatus(ready=True)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{", b'{"inner": {"size": "1"}}', b'{"mode": 1}', b"\xff", b"[" * 100_000]
)
def test_undecodable_json_of_a_peer_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"\w"):
        spec_from_wire(WIDGET, data)


def test_json_bytes_have_sorted_keys_and_no_spaces():
    spec = WidgetSpec(mode="ü", inner=Inner(size=1))
    assert spec_to_wire(WIDGET, spec) == '{"inner":{"size":1},"mode":"ü"}'.encode()
    assert status_to_wire(WIDGET, WidgetStatus()) == b"{}"


def test_kind_without_status_has_none():
    with pytest.raises(ValueError, match="a Mesh has no status"):
        status_from_wire(REGISTRY["Mesh"], b"{}")
