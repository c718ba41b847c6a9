"""Every policy in all its forms: JSON on the wire, the store's text, documents."""

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.model.codec import spec_from_text, spec_from_wire, spec_to_json, spec_to_text, spec_to_wire
from meshd.model.shape import read_strict
from tests.kinds.strategies import specs
from tests.policies.support import POLICIES

ANY = st.sampled_from([p.type for p in POLICIES]).flatmap(lambda t: st.tuples(st.just(t), specs(t.spec)))


@settings(max_examples=200, deadline=None)
@given(ANY)
def test_every_form_says_the_same(case):
    type_, spec = case
    assert spec_from_wire(type_, spec_to_wire(type_, spec)) == spec
    assert spec_from_text(type_, spec_to_text(type_, spec)) == spec
    assert read_strict(type_.spec, spec_to_json(type_, spec)) == spec
    assert spec_to_wire(type_, spec_from_wire(type_, spec_to_wire(type_, spec))) == spec_to_wire(type_, spec)
