"""Codes agree with grpcio and grpclib; errors of ours translate, bugs do not."""

import grpc
import pytest
from grpclib.const import Status as GrpclibStatus

from meshd.model.errors import DeniedError, InvalidError, MeshdError, UnavailableError, Violation
from meshd.rpc.status import RpcError, Status, as_rpc_error


def test_codes_are_grpcs() -> None:
    ours = {status.name: int(status) for status in Status}
    assert ours == {code.name: code.value[0] for code in grpc.StatusCode}
    assert ours == {status.name: status.value for status in GrpclibStatus}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RpcError(Status.ABORTED, "m"), Status.ABORTED),
        (DeniedError("m"), Status.PERMISSION_DENIED),
        (InvalidError("m", [Violation("", "x")]), Status.INVALID_ARGUMENT),
        (UnavailableError("m"), Status.UNAVAILABLE),
        (ExceptionGroup("", [ExceptionGroup("", [DeniedError("m")]), UnavailableError("x")]), Status.PERMISSION_DENIED),
    ],
)
def test_errors_made_on_purpose_have_a_status(error, status) -> None:
    found = as_rpc_error(error)
    assert found is not None
    assert found.status is status
    assert "m" in found.message


@pytest.mark.parametrize(
    "error", [KeyError("x"), MeshdError("m"), ExceptionGroup("", [DeniedError("m"), KeyError("x")])]
)
def test_bugs_have_none(error) -> None:
    assert as_rpc_error(error) is None
