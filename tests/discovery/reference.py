"""The discovery messages as Google's own protobuf sees them, built at run time from descriptors."""

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, struct_pb2

STRING, MESSAGE, INT32 = 9, 11, 5
ONE, MANY = 1, 3


def _message(file: descriptor_pb2.FileDescriptorProto, name: str, *declared: tuple) -> descriptor_pb2.DescriptorProto:
    message = file.message_type.add(name=name)
    for field_name, number, kind, *rest in declared:
        label, type_name = (*rest, *(ONE, "")[len(rest) :])
        message.field.add(name=field_name, number=number, type=kind, label=label, type_name=type_name or None)
    return message


def _map(message: descriptor_pb2.DescriptorProto, name: str, number: int, full_name: str) -> None:
    entry = message.nested_type.add(name="".join(w.capitalize() for w in name.split("_")) + "Entry")
    entry.field.add(name="key", number=1, type=STRING, label=ONE)
    entry.field.add(name="value", number=2, type=STRING, label=ONE)
    entry.options.map_entry = True
    message.field.add(name=name, number=number, type=MESSAGE, label=MANY, type_name=f".{full_name}.{entry.name}")


def _build() -> dict:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(any_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.dependency.extend(["google/protobuf/any.proto", "google/protobuf/struct.proto"])
    _message(
        file,
        "Node",
        ("id", 1, STRING),
        ("cluster", 2, STRING),
        ("metadata", 3, MESSAGE, ONE, ".google.protobuf.Struct"),
    )
    _message(file, "Status", ("code", 1, INT32), ("message", 2, STRING))
    _message(file, "ControlPlane", ("identifier", 1, STRING))
    request = _message(
        file,
        "DeltaDiscoveryRequest",
        ("node", 1, MESSAGE, ONE, ".t.Node"),
        ("type_url", 2, STRING),
        ("resource_names_subscribe", 3, STRING, MANY),
        ("resource_names_unsubscribe", 4, STRING, MANY),
        ("response_nonce", 6, STRING),
        ("error_detail", 7, MESSAGE, ONE, ".t.Status"),
    )
    _map(request, "initial_resource_versions", 5, "t.DeltaDiscoveryRequest")
    _message(
        file,
        "Resource",
        ("version", 1, STRING),
        ("resource", 2, MESSAGE, ONE, ".google.protobuf.Any"),
        ("name", 3, STRING),
    )
    _message(
        file,
        "DeltaDiscoveryResponse",
        ("system_version_info", 1, STRING),
        ("resources", 2, MESSAGE, MANY, ".t.Resource"),
        ("type_url", 4, STRING),
        ("nonce", 5, STRING),
        ("removed_resources", 6, STRING, MANY),
        ("control_plane", 7, MESSAGE, ONE, ".t.ControlPlane"),
    )
    _message(
        file,
        "DiscoveryRequest",
        ("version_info", 1, STRING),
        ("node", 2, MESSAGE, ONE, ".t.Node"),
        ("resource_names", 3, STRING, MANY),
        ("type_url", 4, STRING),
        ("response_nonce", 5, STRING),
        ("error_detail", 6, MESSAGE, ONE, ".t.Status"),
    )
    _message(
        file,
        "DiscoveryResponse",
        ("version_info", 1, STRING),
        ("resources", 2, MESSAGE, MANY, ".google.protobuf.Any"),
        ("type_url", 4, STRING),
        ("nonce", 5, STRING),
        ("control_plane", 6, MESSAGE, ONE, ".t.ControlPlane"),
    )
    meta = _message(file, "Meta", ("name", 1, STRING), ("mesh", 2, STRING), ("version", 5, STRING))
    _map(meta, "labels", 6, "t.Meta")
    _message(
        file,
        "KumaResource",
        ("meta", 1, MESSAGE, ONE, ".t.Meta"),
        ("spec", 2, MESSAGE, ONE, ".google.protobuf.Any"),
        ("status", 3, MESSAGE, ONE, ".google.protobuf.Any"),
    )
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))
        for name in (
            "DeltaDiscoveryRequest",
            "DeltaDiscoveryResponse",
            "DiscoveryRequest",
            "DiscoveryResponse",
            "KumaResource",
        )
    }


_CLASSES = _build()
Request = _CLASSES["DeltaDiscoveryRequest"]
Response = _CLASSES["DeltaDiscoveryResponse"]
StateRequest = _CLASSES["DiscoveryRequest"]
StateResponse = _CLASSES["DiscoveryResponse"]
KumaResource = _CLASSES["KumaResource"]
