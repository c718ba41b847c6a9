"""Any value of a spec class, made from its annotations."""

import enum
import types
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Union, get_args, get_origin

from annotated_types import Ge, Le
from hypothesis import strategies as st

from meshd.kinds.external_service import DataSource
from meshd.model.resource import Spec

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXT | st.sampled_from([0.5, -1.25e300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def specs(spec: type[Spec]) -> st.SearchStrategy[Any]:
    """Instances of ``spec`` with any part set or left out."""
    if spec is DataSource:  # a oneof: at most one way
        return st.sampled_from(["secret", "file", "inline_string"]).flatmap(
            lambda way: TEXT.map(lambda text: DataSource(**{way: text}))
        ) | st.binary(max_size=5).map(lambda data: DataSource(inline=data))
    fields = {name: _values(info.annotation, tuple(info.metadata)) for name, info in spec.model_fields.items()}
    required = {name: fields.pop(name) for name, info in spec.model_fields.items() if info.is_required()}
    oneofs = getattr(spec, "oneofs", ())
    return st.fixed_dictionaries(required, optional=fields).map(lambda values: spec(**_one_of_each(oneofs, values)))


def _one_of_each(oneofs: tuple[tuple[str, ...], ...], values: dict[str, Any]) -> dict[str, Any]:
    """The values without all but the first that is set of each group."""
    surplus = {name for group in oneofs for name in [n for n in group if values.get(n) is not None][1:]}
    return {name: value for name, value in values.items() if name not in surplus}


def _values(annotation: Any, metadata: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(args[0], (*metadata, *_flat(args[1:])))
    if origin in (Union, types.UnionType):
        return st.one_of(*(_values(a, metadata) for a in args if a is not type(None)))
    if origin is tuple:
        return st.lists(_values(args[0]), max_size=2).map(tuple)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        values = JSON if not isinstance(args[1], type) and get_origin(args[1]) is None else _values(args[1])
        return st.dictionaries(TEXT, values, max_size=3)
    if issubclass(annotation, Spec):
        return specs(annotation)
    if issubclass(annotation, enum.Enum):
        return st.sampled_from(annotation)
    return _scalars(annotation, _flat(metadata))


def _flat(metadata: tuple[Any, ...]) -> tuple[Any, ...]:
    flat: list[Any] = []
    for item in metadata:
        flat += getattr(item, "metadata", [item])
    return tuple(flat)


def _scalars(annotation: type, metadata: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if annotation is int:
        low = next((m.ge for m in metadata if isinstance(m, Ge)), -(2**31))
        high = next((m.le for m in metadata if isinstance(m, Le)), 2**31 - 1)
        return st.integers(low, high)
    times = st.datetimes(timezones=st.just(UTC))
    # betterproto2 0.9.1 writes negative durations with parts of different signs; tests/model/test_wire.py has those
    lengths = st.timedeltas(timedelta(), timedelta(days=3000))
    return {
        bool: st.booleans(),
        str: TEXT,
        float: st.floats(allow_nan=False, allow_infinity=False, width=32),
        bytes: st.binary(max_size=8),
        datetime: times,
        timedelta: lengths,
    }[annotation]
