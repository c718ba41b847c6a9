"""Every golden of this package is taken by a real Envoy."""

import pytest

from tests.xds.support import GOLDENS
from tests.xds.validate import complaints, read_golden

CASES = sorted(GOLDENS.glob("*.yaml"))


@pytest.mark.e2e
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_envoy_takes_the_golden(path, tmp_path):
    assert complaints(tmp_path, read_golden(path)) == []


@pytest.mark.e2e
def test_envoy_is_really_asked(tmp_path):
    broken = {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "no address"}

    assert "address is necessary" in str(complaints(tmp_path, [broken]))
