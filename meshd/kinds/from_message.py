"""Specs made from protobuf messages: for kinds that are stored, checked, synced and printed, and nothing more.

Who gives such a kind an effect writes its spec as a class, as the other modules here do.
"""

import enum
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, create_model, model_validator

from meshd.kinds.external_service import DataSource
from meshd.model.fields import Bytes, Duration, UInt32, UInt64
from meshd.model.resource import Spec
from meshd.model.wire_values import shortest_float
from meshd.proto.kuma.system import v1alpha1 as system_proto

_WRITTEN: Mapping[Any, type[Spec]] = {system_proto.DataSource: DataSource}
"""Messages whose specs are classes already."""


class MessageSpec(Spec):
    """``oneofs`` are the groups of fields of which one at most may be there."""

    oneofs: ClassVar[tuple[tuple[str, ...], ...]] = ()

    @model_validator(mode="after")
    def _check_oneofs(self) -> Self:
        for group in self.oneofs:
            there = [name for name in group if getattr(self, name) is not None]
            if len(there) > 1:
                names = [type(self).model_fields[name].alias or name for name in there]
                raise ValueError(f"must have only one of {' and '.join(names)}")
        return self


def _read_float(value: float) -> float:
    try:
        return shortest_float(value)
    except OverflowError:
        raise ValueError(f"is too large for a 32-bit number: {value}") from None


Float32 = Annotated[float, AfterValidator(_read_float)]

_MAPPING: Any = Mapping
_TUPLE: Any = tuple
_STR_ENUM: Any = enum.StrEnum

_SCALARS: Mapping[str, Any] = {"string": str, "bool": bool, "uint32": UInt32, "uint64": UInt64, "bytes": Bytes}
_WRAPPED: Mapping[str, Any] = {
    "BoolValue": bool,
    "BytesValue": Bytes,
    "DoubleValue": float,
    "Duration": Duration,
    "FloatValue": Float32,
    "StringValue": str,
    "UInt32Value": UInt32,
}
_ZEROS: Mapping[str, Any] = {"string": "", "bool": False, "uint32": 0, "uint64": 0, "bytes": b""}


def spec_from_message(message: Any) -> type[MessageSpec]:
    """The spec class of a message class (of betterproto2); the same one each time.

    Raises:
        KeyError: the message has a field of a type that no such kind has had yet.
    """
    made = _MADE.get(message)
    if made is None:
        groups: dict[str, list[str]] = {}
        fields: dict[str, Any] = {}
        for name, meta in message._betterproto.meta_by_field_name.items():  # noqa: SLF001 - no public reader
            fields[name] = _field(message, name, meta)
            if meta.group:
                groups.setdefault(meta.group, []).append(name)
        made = create_model(message.__name__, __base__=MessageSpec, __module__=__name__, **fields)
        made.oneofs = tuple(tuple(group) for group in groups.values())
        _MADE[message] = made
    return made


_MADE: dict[Any, type[MessageSpec]] = {}


def _field(message: Any, name: str, meta: Any) -> tuple[Any, Any]:
    """Annotation and default of a field."""
    cls = message._betterproto.cls_by_field[name]  # noqa: SLF001 - as above
    if meta.map_meta is not None:
        value = _value(meta.map_meta[1], cls._betterproto.cls_by_field["value"])
        return _MAPPING[str, value], {}
    value = _value(meta, cls)
    if meta.repeated:
        return _TUPLE[value, ...], ()
    if meta.optional or meta.group:
        return value | None, None
    zero = next(iter(value)) if meta.proto_type == "enum" else _ZEROS[meta.proto_type]
    return value, zero


def _value(meta: Any, cls: Any) -> Any:
    if meta.proto_type == "enum":
        return _enum(cls)
    if meta.proto_type != "message":
        return _SCALARS[meta.proto_type]
    if meta.unwrap is not None:
        return _WRAPPED[meta.unwrap().__name__]
    return _WRITTEN.get(cls) or spec_from_message(cls)


def _enum(cls: Any) -> Any:
    """An enum of the names, as JSON has them, in order of number."""
    if cls not in _ENUMS:
        members = sorted(cls, key=int)
        _ENUMS[cls] = _STR_ENUM(cls.__name__, {member.name: member.name for member in members})
    return _ENUMS[cls]


_ENUMS: dict[Any, Any] = {}
