import pytest

from meshd.app.xds import bound_by
from meshd.xds.resources import CLUSTER


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "outbound:",
        "outbound:999.1.1.1:80",
        "outbound:1.2.3.4:99999",
        "outbound:1.2.3.4:0",
        "outbound:1.2.3.4:080",
        "outbound:01.2.3.4:80",
        "outbound:1.2.3:80",
        "outbound:1.2.3.4:80\n",
        "outbound:\u0661.2.3.4:80",
        "outbound:[::1]:80",
        "inbound:1.2.3.4:80",
        "xoutbound:1.2.3.4:80",
        CLUSTER,
    ],
)
def test_names_that_are_no_outbound_listeners_are_bound_nowhere(odd):
    assert bound_by([odd]).single == frozenset()
    assert bound_by([odd, "outbound:240.0.0.1:80"]).single == {("240.0.0.1", 80)}
