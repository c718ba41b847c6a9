import pytest

from tests.policies.support import wrong


def to(**conf):
    return {"to": [{"targetRef": {"kind": "Mesh"}, "default": conf}]}


def outliers(**detectors):
    return {"outlierDetection": {"detectors": detectors}}


@pytest.mark.parametrize(
    "spec",
    [
        to(connectionLimits={}),
        to(**outliers(totalFailures={})),
        {"rules": [{"default": outliers(successRate={"standardDeviationFactor": 2})}]},
        {"from": [{"targetRef": {"kind": "Mesh"}, "default": {"connectionLimits": {"maxRetries": 1}}}]},
        {"targetRef": {"kind": "MeshGateway", "name": "g"}, **to(connectionLimits={"maxRetries": 1})},
    ],
)
def test_good_specs(spec):
    assert wrong("MeshCircuitBreaker", spec) == []


@pytest.mark.parametrize(
    ("spec", "violations"),
    [
        ({}, ["spec: at least one of 'from', 'to' or 'rules' has to be defined"]),
        (
            {**to(), "rules": [{}]},
            [
                "spec: fields 'to' and 'from' must be empty when 'rules' is defined",
                "spec.to[0].default: at least one of 'connectionLimits' or 'outlierDetection' must be set",
                "spec.rules[0].default: at least one of 'connectionLimits' or 'outlierDetection' must be set",
            ],
        ),
        (
            {"to": [{"targetRef": {"kind": "MeshHTTPRoute", "name": "r"}, "default": outliers()}]},
            [
                (
                    "spec.to[0].targetRef.kind: value 'MeshHTTPRoute' is not supported here, use one of "
                    "Mesh, MeshService, MeshExternalService, MeshMultiZoneService"
                ),
                (
                    "spec.to[0].default.outlierDetection.detectors: at least one of totalFailures, gatewayFailures, "
                    "localOriginFailures, successRate, failurePercentage must be set"
                ),
            ],
        ),
        (
            to(
                connectionLimits=dict.fromkeys(
                    ("maxConnections", "maxConnectionPools", "maxPendingRequests", "maxRetries", "maxRequests"), 0
                ),
                outlierDetection={
                    "interval": "0s",
                    "baseEjectionTime": "-1s",
                    "maxEjectionPercent": 101,
                    "healthyPanicThreshold": "100.1",
                },
            ),
            [
                *(
                    f"spec.to[0].default.connectionLimits.{field}: must be greater than 0, not 0"
                    for field in (
                        "maxConnections",
                        "maxConnectionPools",
                        "maxPendingRequests",
                        "maxRetries",
                        "maxRequests",
                    )
                ),
                "spec.to[0].default.outlierDetection.interval: must be longer than 0, not 0s",
                "spec.to[0].default.outlierDetection.baseEjectionTime: must be longer than 0, not -1s",
                "spec.to[0].default.outlierDetection.maxEjectionPercent: must be from 0 to 100, not 101",
                "spec.to[0].default.outlierDetection.detectors: must be set",
                "spec.to[0].default.outlierDetection.healthyPanicThreshold: must be from 0 to 100, not 100.1",
            ],
        ),
        (
            to(
                **outliers(
                    totalFailures={"consecutive": 0},
                    gatewayFailures={"consecutive": 0},
                    localOriginFailures={"consecutive": 0},
                    successRate={"minimumHosts": 0, "requestVolume": 0, "standardDeviationFactor": "much"},
                    failurePercentage={"minimumHosts": 0, "requestVolume": 0, "threshold": 101},
                )
            ),
            [
                f"spec.to[0].default.outlierDetection.detectors.{problem}"
                for problem in (
                    "totalFailures.consecutive: must be greater than 0, not 0",
                    "gatewayFailures.consecutive: must be greater than 0, not 0",
                    "localOriginFailures.consecutive: must be greater than 0, not 0",
                    "successRate.minimumHosts: must be greater than 0, not 0",
                    "successRate.requestVolume: must be greater than 0, not 0",
                    "failurePercentage.minimumHosts: must be greater than 0, not 0",
                    "failurePercentage.requestVolume: must be greater than 0, not 0",
                    'successRate.standardDeviationFactor: must be a number, not "much"',
                    "failurePercentage.threshold: must be from 0 to 100, not 101",
                )
            ],
        ),
        (
            to(**outliers(successRate={"standardDeviationFactor": 0})),
            [
                (
                    "spec.to[0].default.outlierDetection.detectors.successRate.standardDeviationFactor: "
                    "must be greater than 0, not 0"
                )
            ],
        ),
        (
            to(**outliers(successRate={"standardDeviationFactor": 1.5})),
            [
                (
                    "spec.to[0].default.outlierDetection.detectors.successRate.standardDeviationFactor: "
                    'must be a whole number, or a number in quotes such as "12.5", not 1.5'
                )
            ],
        ),
    ],
)
def test_all_violations_are_reported(spec, violations):
    assert wrong("MeshCircuitBreaker", spec) == violations
